"""Checkpoints of Megatron-LM in format `torch`: one pickle a rank, `mp_rank_*`."""
