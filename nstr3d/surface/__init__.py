"""Isosurface extraction, sphere tracing, accuracy and smoothness of signed distances."""
