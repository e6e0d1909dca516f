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

SEQ_AUX_LOSS_IGNORES_BATCH = _MINOR < (0, 17)
"""0.16 weighs the sequence-wise balancing loss of B sequences as that of one."""

AUX_LOSS_TRACKER_IN_MOE_UTILS = _MINOR < (0, 18)
"""Until 0.17 router losses are recorded by `moe_utils`, later by `moe_logging`."""

AUX_LOSS_GRADIENT_OMITS_TP_CP = _MINOR < (0, 19)
"""Until 0.18 a router loss that is summed per token is scaled by the tokens of one rank, but its
gradient divided by those of all `tp * cp` ranks that share a sequence
(`attach_and_log_load_balancing_loss`, `apply_z_loss`); 0.19 multiplies by their number."""
