"""Checkpoints of Megatron-LM and Megatron-Bridge (format `torch_dist`), read and written."""
