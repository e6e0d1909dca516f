"""One run of a sweep: its experiment, and what was asked for beside what it became."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from benchmarks.ladder.rungs import Rung
from benchmarks.laws.model_sizes import sizes_of
from benchmarks.sweeps.axes import Settings
from moe.config.experiment import Experiment
from moe.config.model import ModelConfig
from moe.cost.ledger import ledger


@dataclass(frozen=True)
class Held:
    """What an iso design holds of a run."""

    asked: float
    real: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run of a sweep."""

    experiment: Experiment
    settings: Settings
    """Its values of the axes, and of what the design holds."""
    rung: Rung | None
    """Its step of the ladder: the size asked for and the real one; None without a ladder."""
    asked_tokens: float
    """Tokens before they became whole steps."""
    held: Held | None = None
    """What an iso design holds; None for others."""

    @property
    def run_name(self) -> str:
        """Name of its run directory."""
        return f"{self.experiment.name}-{self.experiment.content_hash}"

    @property
    def tokens(self) -> int:
        """Positions that it trains on."""
        train = self.experiment.train
        return train.steps * train.positions_per_step

    @property
    def flops(self) -> float:
        """Its training FLOPs by the cost ledger."""
        return float(self.tokens) * flops_per_token(self.experiment)

    def as_json(self) -> dict[str, Any]:
        """Return its settings, sizes and training."""
        train, sizes = self.experiment.train, sizes_of(self.experiment.model)
        rung = self.rung
        return {
            "run": self.run_name,
            "settings": dict(self.settings),
            "size": None if rung is None else rung.as_json(),
            "held": None if self.held is None else asdict(self.held),
            "num_layers": self.experiment.model.num_layers,
            **sizes,
            "asked_tokens": self.asked_tokens,
            "tokens": self.tokens,
            "steps": train.steps,
            "batch_tokens": train.positions_per_step,
            "learning_rate": train.learning_rate,
            "seed": train.seed,
            "flops": self.flops,
        }


def flops_per_token(experiment: Experiment) -> float:
    """Return training FLOPs of a token by the cost ledger."""
    return _flops_per_token(experiment.model, experiment.train.seq_len)


@lru_cache(maxsize=1024)
def _flops_per_token(model: ModelConfig, seq_len: int) -> float:
    return float(ledger(model, seq_len).training_flops_per_token)
