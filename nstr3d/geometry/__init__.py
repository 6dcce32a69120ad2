"""Geometry that exists before a field is fitted.

`nstr3d.geometry.mesh` repairs and closes meshes and computes their signed distance.
`nstr3d.geometry.cloud` turns point clouds into a first surface. `nstr3d.geometry.shapes` holds
analytic shapes.
"""
