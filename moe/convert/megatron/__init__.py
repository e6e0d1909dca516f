"""Checkpoints of Megatron-LM and Megatron-Bridge: two formats read, `torch_dist` written."""
