"""Kernels for geometry: nearest triangles, dipole sums, marching cubes, splines, point clouds."""
