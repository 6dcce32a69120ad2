"""What one asks of a spectrum: local frequency, relief, segments, streamlines."""
