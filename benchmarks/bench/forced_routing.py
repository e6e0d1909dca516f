"""How a benchmark spreads tokens over experts: naturally, or forced in a known way.

Shapes: T tokens, E experts, K experts a token.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmarks.errors import BenchmarkError


@dataclass(frozen=True)
class RoutingProfile:
    """How tokens are spread over experts."""

    kind: Literal["natural", "untrained", "dense", "forced", "zipf", "hot"]
    """`natural`: as a trained model routes, replayed or warmed up (benchmarks/bench/natural);
    `untrained`: as the router of random weights decides, which is as no trained model does;
    `dense`: there are no experts; `forced`: uniform at random, as for published speeds;
    `zipf`: expert e is drawn in proportion to (e + 1)^-strength; `hot`: a fraction of all tokens
    (`strength`) goes to expert 0, the rest evenly to the others."""
    strength: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind}:{self.strength:g}" if self.kind in ("zipf", "hot") else self.kind

    @property
    def is_drawn(self) -> bool:
        """Whether experts are drawn at random, from a known distribution."""
        return self.kind in ("forced", "zipf", "hot")

    def draw_experts(
        self, num_tokens: int, num_experts: int, top_k: int, generator: torch.Generator
    ) -> Tensor | None:
        """Draw distinct experts for each token, [T, K]; None where none are drawn."""
        if not self.is_drawn:
            return None
        # The top K of log-weights plus Gumbel noise are draws without replacement
        # (arXiv:1903.06059).
        uniform = torch.rand(num_tokens, num_experts, generator=generator, dtype=torch.float64)
        keys = -torch.log(-torch.log(uniform.clamp_min(1e-300)))
        if self.kind == "zipf":
            ranks = torch.arange(1, num_experts + 1, dtype=torch.float64)
            keys = keys - self.strength * ranks.log()
        if self.kind == "hot":
            is_hot = torch.rand(num_tokens, generator=generator) < self.strength
            keys[:, 0] = torch.where(is_hot, torch.inf, -torch.inf)
        return keys.topk(top_k, dim=1).indices


def parse_profile(text: str) -> RoutingProfile:
    """Read `natural`, `untrained`, `forced`, `zipf:S` (S >= 0) or `hot:SHARE` (0 to 1).

    Raises:
        BenchmarkError: Anything else.
    """
    kind, _, number = text.partition(":")
    try:
        if kind in ("natural", "untrained", "forced") and not number:
            return RoutingProfile(kind)  # type: ignore[arg-type]
        if kind == "zipf" and float(number) >= 0:
            return RoutingProfile("zipf", float(number))
        if kind == "hot" and 0 <= float(number) <= 1:
            return RoutingProfile("hot", float(number))
    except ValueError:
        pass
    raise BenchmarkError(
        f"--routing {text!r}: write natural, untrained, forced, zipf:1.0 (exponent), or hot:0.5"
        " (share of tokens at one expert)"
    )


def max_over_mean(experts: Tensor, num_experts: int) -> float:
    """Return the busiest expert's load over the mean load; `experts` are each token's, [T, K]."""
    counts = torch.bincount(experts.flatten(), minlength=num_experts).double()
    return float(counts.max() / counts.mean())
