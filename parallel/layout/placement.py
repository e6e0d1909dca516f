"""Ranks of a layout: the order of parallel dimensions, and the groups that communicate.

The same ranks are ordered twice, once for attention (`tp`, `cp`, `dp`, `pp`) and once for experts
(`etp`, `ep`, `edp`, `pp`); in both the first dimension varies fastest and `pp` slowest. This is
megatron-core's order `tp-cp-ep-dp-pp` (`megatron/core/parallel_state.py`, `RankGenerator`;
arXiv:2504.14960, section 3.2), so ranks of one `tp` group are neighbors on a node.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod

from parallel.errors import ParallelError
from parallel.layout.layout import Layout

ATTENTION_DIMENSIONS = ("tp", "cp", "dp", "pp")
EXPERT_DIMENSIONS = ("etp", "ep", "edp", "pp")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A layout on a number of ranks, with the data-parallel sizes that follow."""

    layout: Layout
    num_ranks: int
    dp: int
    """Data-parallel ranks of attention and dense layers."""
    edp: int
    """Data-parallel ranks of each expert."""

    @property
    def sizes(self) -> dict[str, int]:
        """Ranks along each dimension."""
        layout = self.layout
        return {
            "tp": layout.tp, "cp": layout.cp, "dp": self.dp, "pp": layout.pp,
            "etp": layout.expert_tp, "ep": layout.ep, "edp": self.edp,
        }  # fmt: skip

    def groups(self, *names: str) -> list[list[int]]:
        """Return the groups of ranks that differ only along the named dimensions.

        Args:
            names: Dimensions of attention, or of experts; `groups("dp", "cp")` reduce gradients.

        Raises:
            ValueError: The dimensions belong to neither ordering.
        """
        for dimensions in (ATTENTION_DIMENSIONS, EXPERT_DIMENSIONS):
            if set(names) <= set(dimensions):
                return self._groups(dimensions, set(names))
        raise ValueError(f"{names} are neither in {ATTENTION_DIMENSIONS} nor {EXPERT_DIMENSIONS}")

    def _groups(self, dimensions: tuple[str, ...], inside: set[str]) -> list[list[int]]:
        """Enumerate offsets along the other dimensions, and within each those along `inside`."""
        sizes = [self.sizes[name] for name in dimensions]
        strides = [prod(sizes[:i]) for i in range(len(sizes))]
        axes = list(zip(dimensions, sizes, strides, strict=True))
        within = _offsets((n, stride) for name, n, stride in axes if name in inside)
        across = _offsets((n, stride) for name, n, stride in axes if name not in inside)
        return [[start + offset for offset in within] for start in across]


def place(layout: Layout, num_ranks: int) -> Placement:
    """Place a layout on ranks.

    Raises:
        ParallelError: A product of its sizes does not divide the number of ranks.
    """
    if fault := rank_fault(layout, num_ranks):
        raise ParallelError(fault)
    return Placement(
        layout=layout,
        num_ranks=num_ranks,
        dp=num_ranks // (layout.tp * layout.cp * layout.pp),
        edp=num_ranks // (layout.expert_tp * layout.ep * layout.pp),
    )


def rank_fault(layout: Layout, num_ranks: int) -> str | None:
    """Return which product does not divide the ranks and what to change; None where both do."""
    attention = {"tp": layout.tp, "cp": layout.cp, "pp": layout.pp}
    experts = {"etp": layout.expert_tp, "ep": layout.ep, "pp": layout.pp}
    for sizes in (attention, experts):
        divisor = prod(sizes.values())
        if num_ranks % divisor:
            names = "*".join(sizes)
            numbers = "*".join(str(n) for n in sizes.values())
            return (
                f"{names} = {numbers} = {divisor} does not divide {num_ranks} ranks:"
                f" run on a multiple of {divisor} ranks, or change {', '.join(sizes)}"
            )
    return None


def _offsets(axes: Iterable[tuple[int, int]]) -> list[int]:
    """Return the offset of every index along `axes` (size, stride), the first varying fastest."""
    steps = [[i * stride for i in range(n)] for n, stride in axes]
    return [sum(offsets) for offsets in product(*reversed(steps))]
