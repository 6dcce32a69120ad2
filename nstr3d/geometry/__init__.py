"""What a shape is before it is learned: `nstr3d.geometry.mesh` (repair, distance, holes),
`nstr3d.geometry.cloud` (points to a first surface), `nstr3d.geometry.shapes` (analytic shapes)."""
