"""The installed version of megatron-core, and the differences from 0.16 to 0.19 that we handle.

Code that depends on the version tests one of these flags, never the number. The adaptations of
the CPU host (cpu_host.py) state their versions themselves.
"""

from importlib import metadata

MEGATRON_VERSION: str = metadata.version("megatron-core")
_MINOR = tuple(int(number) for number in MEGATRON_VERSION.split(".")[:2])

SPECS_TAKE_SUBMODULES = _MINOR < (0, 17)
"""0.16 takes specs of submodules (a pair of class and submodules for grouped experts) where later
versions take builders."""

MTP_LAYER = "transformer_layer" if _MINOR < (0, 17) else "mtp_model_layer"
"""Where a layer of multi-token prediction has its Transformer layer."""

PLAN_ATTENTION = "attn" if _MINOR < (0, 17) else "pre_dispatch_computation"
"""Where the plan of a layer, of the combined schedule, has attention with router."""

NEEDS_TRITON = _MINOR >= (0, 19)
"""Its `transformer/moe/ops/paged_stash.py` imports triton unguarded."""

PREDICTION_RECOMPUTES_TENSORS_ONLY = _MINOR < (0, 18)
"""Its depths of multi-token prediction give a checkpoint packed sequences as if they were tensors,
and in FP8 tensors without gradients."""
