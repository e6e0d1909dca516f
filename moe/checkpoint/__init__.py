"""The checkpoint format: safetensors and JSON, saved under one layout, read under any."""
