"""Rungs: the legal model nearest to what dials ask for, and how far it is from that."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.ladder.build import build_model
from benchmarks.ladder.dials import SIZE_DIALS, Dials
from moe.config.model import MOST_LAYERS, ModelConfig
from moe.cost.ledger import ledger

SLACK = 1.25
"""How far width over depth may be from `aspect_ratio`, to come nearer to a number of parameters."""
MOST_HEADS = 10_000
"""Of the widest model that is looked for: `[model]` takes no more."""
FARTHEST = 1.5
"""A model that is smaller or larger by more than this factor is not what was asked for."""


class NothingNearError(BenchmarkError):
    """No model is near to the size that was asked for."""


@dataclass(frozen=True)
class Rung:
    """A model, and the size that was asked for."""

    model: ModelConfig
    size: str
    """Name of the size dial."""
    asked: float
    real: int
    """That size of the model, by the cost ledger (with or without embeddings, as the dials say)."""

    @property
    def error(self) -> float:
        """How much larger than asked, as a share; below 0: smaller."""
        return self.real / self.asked - 1

    def as_json(self) -> dict[str, Any]:
        """Return the size that was asked for and the real one."""
        return {"dial": self.size, "asked": self.asked, "real": self.real, "error": self.error}


def model_of(dials: Dials, base: ModelConfig | None = None) -> ModelConfig:
    """Return the model of `rung_of`."""
    return rung_of(dials, base).model


@lru_cache(maxsize=4096)
def rung_of(dials: Dials, base: ModelConfig | None = None) -> Rung:
    """Return the nearest model whose width, depth and experts are legal.

    For a number of parameters, widths (multiples of `dials.width_step`) and depths are searched
    whose ratio is within a factor of 1.25 of `aspect_ratio`, or rounds to it; the nearest in size
    wins, the wider of equals. More parameters asked for never give fewer.

    Args:
        dials: What is asked for. The base's own width is taken as it is.
        base: What the dials leave open is as in this model.

    Raises:
        NothingNearError: No model is within a factor of 1.5 of that size.
        BenchmarkError: `base` fits no ladder.
    """
    size = next(name for name in SIZE_DIALS if getattr(dials, name) is not None)
    asked = float(getattr(dials, size))
    if size == "hidden_size":
        width = dials.width_step * max(1, round(asked / dials.width_step))
        if base is not None and asked == base.hidden_size:
            width = base.hidden_size
        model = build_model(dials, width, _depth(dials, width), base)
        rung = Rung(model, size, asked, width)
    else:
        width, depth = _search(dials, size, asked, base)
        model = build_model(dials, width, depth, base)
        rung = Rung(model, size, asked, _counted(model, size, dials))
    if not 1 / FARTHEST <= rung.real / asked <= FARTHEST:
        raise NothingNearError(
            f"{size}={asked:.6g}: the nearest model has {rung.real:,}: change the size, vocab_size,"
            " head_dim or experts"
        )
    return rung


def _search(dials: Dials, size: str, asked: float, base: ModelConfig | None) -> tuple[int, int]:
    """Return the width and depth that come nearest to a number of parameters."""

    @cache
    def by_depth(width: int) -> tuple[int, int]:
        """Return the parameters of the shallowest model, and those of one more layer."""
        two = (build_model(dials, width, _least_depth(dials) + more, base) for more in (0, 1))
        shallow, deeper = (_counted(model, size, dials) for model in two)
        return shallow, deeper - shallow

    def parameters(width: int, depth: int) -> int:
        shallow, per_layer = by_depth(width)
        return shallow + (depth - _least_depth(dials)) * per_layer

    step = dials.width_step
    groups = MOST_HEADS // dials.heads_per_kv_head
    most_steps = max(
        1, int(groups * dials.head_dim * dials.heads_per_kv_head / (dials.attention_ratio * step))
    )
    # Sizes grow with width, at the least and at the most depth alike: only widths between those
    # where these two reach the size asked for can come nearest.
    first = _first(lambda k: parameters(k * step, _depths(dials, k * step)[1]) >= asked, most_steps)
    last = _first(lambda k: parameters(k * step, _depths(dials, k * step)[0]) >= asked, most_steps)
    best = (math.inf, 0, 0)
    for width in range(step * max(1, first - 1), step * last + 1, step):
        least, most = _depths(dials, width)
        shallow, per_layer = by_depth(width)
        depth = math.floor(_least_depth(dials) + (asked - shallow) / per_layer)
        for near in (depth, depth + 1):
            legal = min(most, max(least, near))
            distance = abs(math.log(parameters(width, legal) / asked))
            best = min(best, (distance, -width, legal))
    return -best[1], best[2]


def _depths(dials: Dials, width: int) -> tuple[int, int]:
    """Return the least and the most layers of a width."""
    depth, ideal = _depth(dials, width), width / dials.aspect_ratio
    if dials.num_layers is not None:
        return depth, depth
    least = max(_least_depth(dials), math.ceil(ideal / SLACK))
    return min(least, depth), min(MOST_LAYERS, max(depth, math.floor(ideal * SLACK)))


def _depth(dials: Dials, width: int) -> int:
    """Return the layers of a width by its aspect ratio."""
    by_ratio = max(_least_depth(dials), round(width / dials.aspect_ratio))
    return dials.num_layers or min(MOST_LAYERS, by_ratio)


def _least_depth(dials: Dials) -> int:
    return dials.first_dense_layers + 1 if dials.experts > 1 else 1


def _counted(model: ModelConfig, size: str, dials: Dials) -> int:
    """Return the model's size as the dials count it."""
    costs = ledger(model, 1)
    counted = costs.total_parameters if size == "parameters" else costs.active_parameters
    return counted - (costs.embedding_parameters if dials.embeddings == "out" else 0)


def _first(is_enough: Callable[[int], bool], most: int) -> int:
    """Return the least number for which something that stays true is true, or `most`."""
    low, high = 0, 1
    while high < most and not is_enough(high):
        low, high = high, min(most, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
