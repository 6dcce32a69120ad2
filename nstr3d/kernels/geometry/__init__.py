"""Distances to triangles, sums over dipoles, grids of bricks, splines."""
