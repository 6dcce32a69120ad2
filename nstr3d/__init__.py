"""nstr3d: neural surfaces with a local spectrum."""
