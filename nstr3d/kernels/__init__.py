"""Compiled and plain inner loops. They work on arrays and depend on no mesh or field class.

`nstr3d.kernels.field` evaluates fields, `nstr3d.kernels.step` takes training steps, and
`nstr3d.kernels.geometry` measures triangles, point clouds and grids. Numba compiles the kernels
for the CPU, Triton for the GPU. Every compiled function has a twin in plain torch, NumPy or libigl.
"""
