"""One combination of a sweep's axes as an experiment: model, tokens, batch, learning rate."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.ladder.build import check_unturned, dials_of
from benchmarks.ladder.dials import SIZE_DIALS, Dials
from benchmarks.ladder.rungs import Rung, rung_of
from benchmarks.laws.model_sizes import sizes_of
from benchmarks.sweeps.axes import DIALS, OWN, Settings
from benchmarks.sweeps.design import Design
from benchmarks.sweeps.point import Point, flops_per_token
from moe.config.experiment import Experiment, make_experiment, validated

TokensOf = Callable[[Experiment], float]


def make_point(design: Design, settings: Settings, tokens_of: TokensOf | None = None) -> Point:
    """Return the point of some settings.

    Args:
        design: The design.
        settings: Values of its axes and of dials that it holds.
        tokens_of: Tokens of an experiment whose model is built, for designs that hold what tokens
            cost.

    Raises:
        InputError: They make no legal experiment; names key and rule.
    """
    values = copy.deepcopy(dict(design.base_values))
    values["name"] = design.name
    for name, value in settings.items():
        if name not in DIALS and name not in OWN and not name.startswith("iso-"):
            _set(values, name, value)
    if "seeds" in settings:
        _set(values, "train.seed", settings["seeds"])
    experiment = make_experiment(values, str(design.path))
    rung = None
    if design.uses_ladder:
        rung = _rung(design, experiment, settings)
        values["model"] = rung.model.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        experiment = make_experiment(values, str(design.path))
    asked = _asked_tokens(experiment, settings, tokens_of)
    is_derived = tokens_of is not None or "tokens" in settings
    _set_training(values, design, experiment, asked, is_derived=is_derived)
    experiment = make_experiment(values, str(design.path))
    return Point(experiment=experiment, settings=settings, rung=rung, asked_tokens=asked)


def _rung(design: Design, experiment: Experiment, settings: Settings) -> Rung:
    """Return the model of the ladder; dials that are not turned are the base's."""
    model = experiment.model
    dials = dials_of(model) | {name: settings[name] for name in DIALS if name in settings}
    if not set(SIZE_DIALS) & set(settings):
        dials = {"hidden_size": model.hidden_size} | dials
        if "aspect_ratio" not in settings:
            dials = {"num_layers": model.num_layers} | dials
    rung = rung_of(validated(Dials, dials, str(design.path), ("axes",)), model)
    try:
        check_unturned(model, rung.model, settings)
    except BenchmarkError as error:
        raise BenchmarkError(f"{design.path}: {error}") from None
    return rung


def _asked_tokens(experiment: Experiment, settings: Settings, tokens_of: TokensOf | None) -> float:
    train = experiment.train
    if tokens_of is not None:
        return tokens_of(experiment)
    asked = settings.get("tokens", train.steps * train.positions_per_step)
    is_number = isinstance(asked, int | float) and not isinstance(asked, bool)
    if not is_number or not 0 < asked < math.inf:
        raise BenchmarkError(f"axes.tokens = {asked!r:.40}: write a number greater than 0")
    return float(asked)


def _set_training(
    values: dict[str, Any],
    design: Design,
    experiment: Experiment,
    asked: float,
    *,
    is_derived: bool,
) -> None:
    """Set steps, batch, learning rate and warm-up in an experiment's plain values."""
    train, transfer = experiment.train, design.file.transfer
    flops = asked * flops_per_token(experiment)
    batch, micro = train.global_batch_size, train.micro_batch_size
    batch_tokens = transfer.batch_tokens_of(tokens=asked, flops=flops)
    if batch_tokens is not None:
        batch = micro * max(1, round(batch_tokens / (micro * train.seq_len)))
        _set(values, "train.global_batch_size", batch)
    steps = train.steps
    if is_derived or batch_tokens is not None:
        steps = round(asked / (batch * train.seq_len))
        if not steps:
            raise BenchmarkError(
                f"{asked:.6g} tokens are less than one step of {batch * train.seq_len:,}: take"
                " more, or a smaller train.global_batch_size"
            )
        _set(values, "train.steps", steps)
    rate = transfer.learning_rate_of(
        non_embedding_parameters=sizes_of(experiment.model)["non_embedding_parameters"],
        tokens=asked,
        flops=flops,
        hidden_size=experiment.model.hidden_size,
    )
    if rate is not None:
        _set(values, "train.learning_rate", rate)
        share = train.min_learning_rate / train.learning_rate
        _set(values, "train.min_learning_rate", share * rate)
    if design.file.warmup_share is not None:
        _set(values, "train.warmup_steps", round(design.file.warmup_share * steps))


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    table = values
    for parent in parents:
        inner = table.get(parent)
        table[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        table = table[parent]
    table[leaf] = value
