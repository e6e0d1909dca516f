"""The network on megatron-core: router, experts, attention, norms, loss, and their kernel sets."""
