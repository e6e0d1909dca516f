"""Tensors on disk (safetensors); durable files in general are in `data.storage`."""
