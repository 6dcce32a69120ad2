"""Triangle meshes: repaired, closed, placed in the unit box, and measured."""
