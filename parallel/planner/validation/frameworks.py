"""What a published row's program could do when it ran settles flags that the row leaves out.

Dates are those of megatron-core's releases on PyPI, contents those of its CHANGELOG.md and sources.
"""

import re

_RELEASED = {
    8: (2024, 8), 9: (2024, 10), 10: (2025, 2), 11: (2025, 3), 12: (2025, 5), 13: (2025, 7),
    14: (2025, 10),
}  # fmt: skip
"""Year and month in which megatron-core 0.N was released."""
_FOLDING, _DEEPEP, _EXPERT_OVERLAP = 10, 12, 14
"""Versions 0.N that first had experts of another tensor parallelism than attention's, DeepEP's
exchange, and exchanges beside another micro-batch (`overlap_moe_expert_parallel_comm`)."""
_VERSION = re.compile(r"megatron-core 0\.(\d{1,3})\b")
_MONTH = re.compile(r"\bmegatron-core (20\d\d)-(\d\d)\b")
_CONTAINER = re.compile(r"\bNeMo (\d\d)\.(\d\d)\b")
_AHEAD_MONTHS = 3
"""By how much NeMo's containers may be ahead of releases: they hold development versions."""
_OLDER = {"Pai-Megatron-Patch": 13}
"""Programs by name, with the version 0.N that they built on in their published runs (Pai's
`Megatron-LM-250624`)."""
_CHOSEN: dict[str, dict[str, str | int]] = {
    "Pai-Megatron-Patch": {"dispatcher": "alltoall", "vpp": 1}
}
"""What programs set where a run does not say (Pai's `run_mcore_qwen3.sh`)."""


def settled(framework: str, tensor_ranks: int) -> dict[str, str | int]:
    """Return the columns that a program's release settles, each with its only value.

    Args:
        framework: The program and its release, as the row names it.
        tensor_ranks: Tensor-parallel ranks of attention.
    """
    found: dict[str, str | int] = {}
    for name, values in _CHOSEN.items():
        if name in framework:
            found |= values
    version = _version(framework)
    if version is None:
        return found
    if version < _EXPERT_OVERLAP:
        found["ep_overlap"] = "off"
    if version < _DEEPEP:
        found["dispatcher"] = "alltoall"
    if version < _FOLDING:
        found["etp"] = tensor_ranks
    return found


def _version(framework: str) -> int | None:
    """Return N of the megatron-core 0.N that a program had, as far as its name tells."""
    for name, version in _OLDER.items():
        if name in framework:
            return version
    if match := _VERSION.search(framework):
        return int(match[1])
    if match := _MONTH.search(framework):
        months = 12 * int(match[1]) + int(match[2])
    elif match := _CONTAINER.search(framework):
        months = 12 * (2000 + int(match[1])) + int(match[2]) + _AHEAD_MONTHS
    else:
        return None
    return max(
        (v for v, (year, month) in _RELEASED.items() if 12 * year + month <= months), default=0
    )
