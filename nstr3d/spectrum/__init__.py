"""Readings of a spectrum: local frequency, relief, segments, streamlines."""
