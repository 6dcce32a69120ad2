"""Model files: safetensors with config tags, compressed pictures, sounds and shapes, ONNX, NPZ."""
