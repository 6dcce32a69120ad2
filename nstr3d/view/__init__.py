"""Viewers: a desktop window by Open3D, a browser page by viser, and a page in one HTML file."""
