"""Axes of a sweep: what is turned, which values it takes, and their combinations."""

import difflib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from benchmarks.errors import BenchmarkError
from benchmarks.ladder.dials import Dials
from data.frozen_model import FrozenModel
from moe.config.experiment import Experiment, validated
from moe.config.explain import key_names

Settings = Mapping[str, Any]
"""One value for each axis, by its name."""
DIALS = tuple(Dials.model_fields)
OWN = ("tokens", "seeds")
"""Axes that are neither a dial of the ladder nor a key of an experiment."""
MOST_VALUES = 100_000
UNTRAINED = ("energy", "slurm", "track")
"""Sections of an experiment that training does not depend on, nor the name of its run."""
LARGEST_BOUND = 1e60
LARGEST_WHOLE = 2**53
"""Up to which every whole number is a float."""


class Range(FrozenModel):
    """Values between two bounds, for random designs."""

    low: float = Field(ge=-LARGEST_BOUND, le=LARGEST_BOUND)
    high: float = Field(ge=-LARGEST_BOUND, le=LARGEST_BOUND)
    scale: Literal["log", "linear"] = "log"
    """On which scale all values are equally likely."""
    integer: bool = False
    """Round to whole numbers."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low={self.low} exceeds high={self.high}: exchange them")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f'low={self.low}: a scale "log" starts above 0; or take "linear"')
        bounds = {"low": self.low, "high": self.high}
        for name, value in bounds.items() if self.integer else ():
            if not value.is_integer():
                raise ValueError(f"{name}={value}: integer = true draws whole numbers: give one")
            if abs(value) > LARGEST_WHOLE:
                raise ValueError(f"{name}={value:g}: whole numbers reach to {LARGEST_WHOLE:,}")
        return self

    def draw(self, source: random.Random) -> float | int:
        """Return a value."""
        if self.scale == "log":
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = source.uniform(self.low, self.high)
        value = min(self.high, max(self.low, value))
        return round(value) if self.integer else value


class RandomDesign(FrozenModel):
    """The `[random]` table."""

    count: int = Field(ge=1, le=MOST_VALUES)
    """Combinations to draw; `seeds` multiply them."""
    seed: int = Field(default=0, ge=0)
    """Of the draw: the same seed draws the same combinations."""


Axis = tuple[Any, ...] | Range


def read_axes(table: Mapping[str, Any], origin: str) -> dict[str, Axis]:
    """Return the axes of an `[axes]` table: a list of values, a range, or one fixed value each.

    Raises:
        BenchmarkError: An axis has no values, one twice, or a name that nothing has.
        ConfigError: A range breaks a rule.
    """
    axes: dict[str, Axis] = {}
    known = {*DIALS, *OWN, *key_names(Experiment)} - {"name"}
    for name, value in _leaves(table):
        if name not in known and not _is_entry(name, known):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f": did you mean {near[0]}?" if near else ": name a dial or an experiment's key"
            raise BenchmarkError(f"{origin}: axes.{name}: unknown{hint}")
        if name.split(".")[0] in UNTRAINED:
            raise BenchmarkError(
                f"{origin}: axes.{name}: changes nothing of what runs train: set it in the base"
            )
        if isinstance(value, Mapping):
            axes[name] = validated(Range, value, origin, ("axes", name))
            continue
        values = tuple(value) if isinstance(value, list) else (value,)
        texts = [repr(one) for one in values]
        if not values or len(values) > MOST_VALUES:
            raise BenchmarkError(f"{origin}: axes.{name}: {len(values)} values: give 1 or more")
        if len(set(texts)) < len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise BenchmarkError(f"{origin}: axes.{name}: {twice[:60]} is there twice")
        axes[name] = values
    return axes


def grid(axes: Mapping[str, Axis], origin: str) -> Iterator[Settings]:
    """Return all combinations, the last axis turning fastest.

    Raises:
        BenchmarkError: An axis is a range.
    """
    lists: list[Sequence[Any]] = []
    for name, axis in axes.items():
        if isinstance(axis, Range):
            raise BenchmarkError(f'{origin}: axes.{name}: a range needs kind = "random"; list it')
        lists.append(axis)
    count = math.prod(map(len, lists))
    if count > MOST_VALUES:
        raise BenchmarkError(f"{origin}: {count:,} combinations: at most {MOST_VALUES:,}")
    return (dict(zip(axes, values, strict=True)) for values in product(*lists))


def drawn(axes: Mapping[str, Axis], design: RandomDesign) -> Iterator[Settings]:
    """Return random combinations, each with every one of `seeds`."""
    source = random.Random(design.seed)
    seeds = axes.get("seeds")
    for _ in range(design.count):
        settings = {
            name: axis.draw(source) if isinstance(axis, Range) else source.choice(axis)
            for name, axis in axes.items()
            if name != "seeds"
        }
        if isinstance(seeds, tuple):
            yield from (settings | {"seeds": seed} for seed in seeds)
        else:
            yield settings


def _is_entry(name: str, known: set[str]) -> bool:
    """Return whether a name is of an entry in a table of free names, as `data.weights.SOURCE`."""
    table = name.rpartition(".")[0]
    return table in known and not any(other.startswith(f"{table}.") for other in known)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return dotted names and values; a table with bounds is a range."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
