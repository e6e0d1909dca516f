"""The network on megatron-core: routers, experts, attention, norms, loss, and two kernel sets.

Kernel set `torch` is ours (torch_kernels.py), `te` is Transformer Engine's; both are built through
megatron-core's layer specs (layer_specs.py).
"""
