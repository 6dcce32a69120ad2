"""Training: samplers, losses, presets, and `nstr3d.training.fit`, the loop over steps."""
