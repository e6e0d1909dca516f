"""Durable files and folders, and tensors on disk (safetensors)."""
