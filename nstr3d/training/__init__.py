"""Training: samplers, losses, presets, and `nstr3d.training.fit`, which iterates over steps."""
