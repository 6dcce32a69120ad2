"""Triangle meshes: repair, closing of holes, placement in the unit box, and measurement."""
