"""Fits on disk: safetensors with tags for configs, compressed pictures and sounds, ONNX and NPZ."""
