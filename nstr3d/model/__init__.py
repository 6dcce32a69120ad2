"""Model files: safetensors with config tags, compressed pictures and sounds, ONNX and NPZ."""
