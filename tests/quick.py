"""Fits that are over soon and whose accuracy nobody looks at beyond a few cells."""

QUICK = {"preset": "fast", "pool": 40_000, "samples": 4000, "picture": 32}  # of a MeshJob
# the same on the command line
WORDS = tuple(word for name, value in QUICK.items() for word in (f"--{name}", str(value)))
