"""Compiled and plain inner loops: no module here knows what a mesh or a field is.

`nstr3d.kernels.field` evaluates fields, `nstr3d.kernels.step` takes training steps,
`nstr3d.kernels.geometry` measures triangles, clouds and grids. numba compiles for the CPU, Triton
for the GPU. Every compiled function has a twin in plain torch, NumPy or libigl.
"""
