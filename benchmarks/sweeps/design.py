"""The design file of a sweep: one TOML file, strict, its base experiment beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from benchmarks.errors import BenchmarkError
from benchmarks.ladder.build import DIAL_KEYS
from benchmarks.ladder.dials import SIZE_DIALS
from benchmarks.sweeps.axes import DIALS, Axis, RandomDesign, read_axes
from benchmarks.sweeps.transfer import Transfer
from data.frozen_model import FrozenModel
from moe.config.experiment import Experiment, make_experiment, validated
from moe.config.toml_file import read_toml

Kind = Literal["grid", "random", "iso-flop", "iso-active", "iso-total", "iso-memory", "iso-energy"]
Limit = Annotated[float, Field(gt=0, le=1e60)]
HELD_DIALS = {"iso-active": "active_parameters", "iso-total": "parameters"}
FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "iso-flop": ("tokens", "train.steps"),
    "iso-energy": ("tokens", "train.steps"),
    "iso-active": SIZE_DIALS,
    "iso-total": SIZE_DIALS,
    "iso-memory": SIZE_DIALS,
}
"""Axes that an iso design does not have: they follow from what it holds."""


class Budget(FrozenModel):
    """The `[budget]` table: most of what all runs may take together; None: no limit."""

    max_runs: int | None = Field(default=None, ge=1)
    max_flops: Limit | None = None
    """Training FLOPs."""
    max_hours: Limit | None = None
    """Hours of the runs one after another."""
    max_joules: Limit | None = None
    max_money: Limit | None = None
    """In the base's `energy.currency`."""
    beyond: Literal["refuse", "cut"] = "refuse"
    """Refuse a design that exceeds a limit, or leave out its last points."""


class DesignFile(FrozenModel):
    """What a design file says."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the sweep and its runs. Default: the file's."""
    base: Path
    """Experiment that every point changes, from the design file's folder."""
    kind: Kind = "grid"
    """How axes combine, and what is held."""
    hold: tuple[Limit, ...] = ()
    """Values that an iso design holds: FLOPs, parameters, bytes or joules of one run."""
    axes: dict[str, Any] = {}
    """What is turned: dials of the ladder, `tokens`, `seeds`, dotted keys of the experiment."""
    random: RandomDesign | None = None
    transfer: Transfer = Transfer()
    warmup_share: float | None = Field(default=None, ge=0, lt=1)
    """`train.warmup_steps` as a share of each run's steps. Default: the base's steps."""
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "random") != (self.random is not None):
            raise ValueError('kind = "random" and a [random] table go together')
        if self.kind.startswith("iso-") != bool(self.hold):
            raise ValueError('a kind "iso-..." and hold, a list of values, go together')
        if len(set(self.hold)) < len(self.hold):
            raise ValueError("hold: a value is there twice")
        return self


@dataclass(frozen=True)
class Design:
    """A design file, its axes and its base, read."""

    path: Path
    name: str
    file: DesignFile
    axes: dict[str, Axis]
    base: Experiment
    base_values: Mapping[str, Any]
    """The base as it is written."""

    @property
    def uses_ladder(self) -> bool:
        """Whether models come from the ladder: a dial of it is turned or held."""
        held = self.file.kind in HELD_DIALS or self.file.kind == "iso-memory"
        return held or bool(set(DIALS) & self.axes.keys())


def read_design(path: Path) -> Design:
    """Read a design file and its base.

    Raises:
        ConfigError: A file cannot be read, or a key or value breaks a rule.
        BenchmarkError: Axes contradict each other or what the design holds.
    """
    file = validated(DesignFile, read_toml(path), str(path))
    axes = read_axes(file.axes, str(path))
    for name in FOLLOWS.get(file.kind, ()):
        if name in axes:
            raise BenchmarkError(
                f"{path}: axes.{name} follows from what {file.kind} holds: remove it"
            )
    sizes = [name for name in SIZE_DIALS if name in axes]
    if len(sizes) > 1:
        raise BenchmarkError(f"{path}: axes: {' and '.join(sizes)}: turn one size")
    for one, other in (("tokens", "train.steps"), ("seeds", "train.seed")):
        if one in axes and other in axes:
            raise BenchmarkError(f"{path}: axes: {one} and {other} set the same: remove one")
    rules = {"learning_rate": "train.learning_rate", "batch": "train.global_batch_size"}
    for rule, key in rules.items():
        if getattr(file.transfer, rule) is not None and key in axes:
            raise BenchmarkError(f"{path}: axes.{key}: transfer.{rule} sets it: remove one")
    if file.warmup_share is not None and "train.warmup_steps" in axes:
        raise BenchmarkError(f"{path}: axes.train.warmup_steps: warmup_share sets it: remove one")
    base_file = path.parent / file.base
    values = read_toml(base_file)
    base = make_experiment(values, str(base_file))
    name = file.name or path.stem
    design = Design(path=path, name=name, file=file, axes=axes, base=base, base_values=values)
    decided = [f"model.{key}" for key in DIAL_KEYS if f"model.{key}" in axes]
    if design.uses_ladder and decided:
        raise BenchmarkError(f"{path}: axes.{decided[0]}: the ladder decides it: turn its dials")
    return design
