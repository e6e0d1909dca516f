"""Seconds by term, of a forward and of a backward pass."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Term = Literal[
    "matmul", "expert_matmul", "attention", "memory_bound", "fp8_cast", "tensor_parallel",
    "context_parallel", "expert_exchange", "recomputation", "host",
]  # fmt: skip
"""What a rank's time in a layer goes to; communication is what compute does not hide."""


@dataclass(frozen=True)
class TermSeconds:
    """Seconds of one rank by term, forward and backward."""

    forward: defaultdict[Term, float] = field(default_factory=lambda: defaultdict(float))
    backward: defaultdict[Term, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, term: Term, forward: float, backward: float) -> None:
        """Add seconds of one operation."""
        self.forward[term] += forward
        self.backward[term] += backward

    def add_all(self, other: "TermSeconds", times: float = 1.0) -> None:
        """Add another's seconds, `times` over."""
        for term, seconds in other.forward.items():
            self.forward[term] += times * seconds
        for term, seconds in other.backward.items():
            self.backward[term] += times * seconds

    @property
    def forward_seconds(self) -> float:
        """The sum of the forward pass."""
        return sum(self.forward.values())

    @property
    def backward_seconds(self) -> float:
        """The sum of the backward pass."""
        return sum(self.backward.values())

    def by_term(self) -> Mapping[Term, float]:
        """Return both passes together."""
        total = defaultdict(float, self.forward)
        for term, seconds in self.backward.items():
            total[term] += seconds
        return total


class Parts(defaultdict[str, TermSeconds]):
    """The seconds of a block's parts, by megatron-core's names where it can recompute them."""

    def __init__(self) -> None:
        super().__init__(TermSeconds)

    def total(self) -> TermSeconds:
        """Return the sum of all parts."""
        seconds = TermSeconds()
        for part in self.values():
            seconds.add_all(part)
        return seconds

    def forward_seconds(self, names: Iterable[str]) -> float:
        """Return the seconds of the forward pass of some parts, as far as the block has them."""
        return sum(self[name].forward_seconds for name in names if name in self)
