"""What a model may cost, and what it must serve."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from benchmarks.errors import BenchmarkError
from moe.cost.ledger import Ledger

LEAST, MOST = 1e-9, 1e40
TOKENS_PER_PARAMETER = 20.0
"""Training tokens per active parameter where no limit says anything of them: about what is optimal
under a limit of FLOPs by Hoffmann et al. 2022 (arXiv 2203.15556, table 3)."""
UNITS = {
    "flops": "FLOPs", "gpu_hours": "GPU-hours", "joules": "joules", "money": "money",
    "gco2": "gCO2e",
}  # fmt: skip
"""Of what a limit is, in sentences."""
CACHE_BITS = 16
"""Of one number in the KV cache."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How the trained model is served."""

    tokens: float = 0.0
    """Tokens over the model's life, prompts and answers."""
    utilisation: float = 0.1
    """Share of the card's rate that serving reaches, of 2 FLOPs a token and active parameter. An
    assumption."""
    weight_bits: int = 16
    """Of one weight."""
    context: int = 4096
    """Tokens of each sequence in the KV cache."""
    batch: int = 1
    """Sequences at once."""

    def __post_init__(self) -> None:
        """Refuse what is no such number."""
        if not 0 <= self.tokens <= MOST:
            raise BenchmarkError(f"--served-tokens {self.tokens:g}: give a number up to {MOST:g}")
        if not 0 < self.utilisation <= 1:
            raise BenchmarkError(
                f"--serving-utilisation {self.utilisation:g}: a share above 0, at most 1"
            )

    def memory_bytes(self, costs: Ledger) -> float:
        """Return the bytes of all weights and the KV cache, activations not counted.

        Weights: all parameters times bits / 8. Cache: for each token of each sequence 2 x layers x
        key-value heads x head dimension numbers (Shazeer 2019, arXiv 1911.02150; latent attention:
        its compressed ones, arXiv 2405.04434), as the cost ledger counts them.
        """
        weights = (costs.total_parameters - costs.mtp_parameters) * self.weight_bits / 8
        tokens = float(self.context) * self.batch
        return weights + tokens * costs.kv_cache_elements_per_token * CACHE_BITS / 8


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What training may cost at most; None where nothing is said. Several bind together."""

    flops: float | None = None
    """Training FLOPs by the law's convention."""
    gpu_hours: float | None = None
    joules: float | None = None
    money: float | None = None
    gco2: float | None = None
    tokens: float | None = None
    """Training tokens: what data there is."""
    memory_bytes: float | None = None
    memory: Literal["training", "serving"] = "serving"
    """What `memory_bytes` limits: each card in training, or all of a served model."""
    serving: Serving = field(default_factory=Serving)

    def __post_init__(self) -> None:
        """Refuse what is no positive number, and a request without any limit."""
        amounts = {
            one.name: value
            for one in fields(self)
            if one.name not in ("memory", "serving")
            and (value := getattr(self, one.name)) is not None
        }
        for name, value in amounts.items():
            if not (math.isfinite(value) and LEAST <= value <= MOST):
                raise BenchmarkError(
                    f"limit {name.replace('_', '-')} {value:g}: give a number from {LEAST:g} to"
                    f" {MOST:g}"
                )
        if not amounts:
            raise BenchmarkError(
                "no limit: say at least one of FLOPs, GPU-hours, joules, money, emissions,"
                " tokens, memory"
            )

    def scaled(self, factor: float) -> "Limits":
        """Return so many times the limits of FLOPs and of what cards cost."""
        names = ("flops", "gpu_hours", "joules", "money", "gco2")
        given = {n: value * factor for n in names if (value := getattr(self, n)) is not None}
        return replace(self, **given)

    @property
    def is_of_flops_alone(self) -> bool:
        """Whether nothing but FLOPs is limited."""
        return (
            self.flops is not None and not self.of_cards and not (self.tokens or self.memory_bytes)
        )

    @property
    def of_cards(self) -> dict[str, float]:
        """Those that only a layout on cards tells the cost of, by quantity of a `RunPlan`."""
        names = ("gpu_hours", "joules", "money", "gco2")
        return {name: value for name in names if (value := getattr(self, name)) is not None}
