"""Data sets of thousands of shapes: worker processes fit them, a catalogue lists the results.

A worker that dies costs only the shape that it was fitting; the catalogue stays valid.
"""
