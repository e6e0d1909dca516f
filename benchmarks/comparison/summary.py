"""The report's summary: the best by each quantity, the Pareto front, what noise leaves open."""

from collections.abc import Sequence

from benchmarks.comparison.machine import doubt
from benchmarks.comparison.pareto import pareto_front
from benchmarks.comparison.quantities import BY_KEY
from benchmarks.comparison.seed_groups import SeedGroup
from parallel.measurement.measurement import Measurement, comparable
from parallel.measurement.number_text import readable, scale_beside

# Names in one sentence; the rest are counted.
MAX_NAMES = 4
_EXTREMES = (
    ("loss", "Lowest held-out loss"),
    ("tokens_per_s", "Fastest"),
    ("energy_per_token", "Least energy a token"),
    ("money", "Cheapest run"),
)


def summary(groups: Sequence[SeedGroup]) -> list[str]:
    """Return the sentences, most important first."""
    lines = [line for key, words in _EXTREMES if (line := _extreme(groups, key, words))]
    lines += [line for line in (_front(groups), _noise(groups), _origin(groups), _meter(groups))
              if line]  # fmt: skip
    return lines


def _extreme(groups: Sequence[SeedGroup], key: str, words: str) -> str | None:
    """Return who is best by a quantity and who follows; `None` unless two are comparable.

    Where the machine was not the same for all, nobody is best.
    """
    known = [(m, g) for g in groups if (m := g.measurement(key)).value is not None]
    if len(known) < 2 or not comparable([measurement for measurement, _ in known]):
        return None
    if reason := doubt(key, [run for _, group in known for run in group.runs]):
        return f"{words}: not told, as {reason}."
    sign = 1 if BY_KEY[key].better == "lower" else -1
    ordered = sorted(known, key=lambda pair: sign * (pair[0].value or 0.0))
    (best, group), (second, runner_up) = ordered[0], ordered[1]
    beside = scale_beside([best.value, second.value])
    return (
        f"{words}: {group.label} ({_text(best, beside)}), before {runner_up.label}"
        f" ({_text(second, beside)})"
        f"{'' if len(known) == len(groups) else f'; known of {len(known)} of {len(groups)}'}."
    )


def _text(measurement: Measurement, beside: float | None) -> str:
    spread = measurement.uncertainty
    half = f" ± {readable(spread, measurement.unit)}" if spread else ""
    return f"{readable(measurement.value, measurement.unit, beside)}{half}, {measurement.kind}"


def _front(groups: Sequence[SeedGroup]) -> str | None:
    for cost in ("energy", "training_flops"):
        members = pareto_front(groups, cost)
        if len(groups) > 2 and members:
            label = BY_KEY[cost].label
            return (
                f"No other model is both better and cheaper than {_names(members)} (loss against"
                f" {label[0].lower()}{label[1:]})."
            )
    return None


def _noise(groups: Sequence[SeedGroup]) -> str | None:
    single = [group for group in groups if len(group.runs) == 1]
    if len(groups) < 2 or not single:
        return None
    whom = "all models" if len(single) == len(groups) else _names(single)
    return (
        f"One seed only: {whom}. How much of a difference is noise cannot be told there; two or"
        " more seeds of each give intervals."
    )


def _origin(groups: Sequence[SeedGroup]) -> str | None:
    parts = [group.measurement("energy_per_token") for group in groups]
    kinds = {part.kind for part in parts if part.value is not None}
    if kinds == {"measured"}:
        places = sorted({part.boundary or "" for part in parts if part.boundary})
        return f"Joules are measured ({', '.join(places)})."
    if "modelled" in kinds:
        whose = "all" if kinds == {"modelled"} else "some"
        return f"Joules of {whose} models are modelled, not measured: good for ratios at best."
    return None


def _meter(groups: Sequence[SeedGroup]) -> str | None:
    shares = [value for group in groups
              if (value := group.measurement("metering").value) is not None]  # fmt: skip
    if not shares:
        return None
    return f"Metering took at most {readable(max(shares), 'share')} of training time."


def _names(groups: Sequence[SeedGroup]) -> str:
    labels = [group.label for group in groups]
    if len(labels) > MAX_NAMES:
        return f"{', '.join(labels[:MAX_NAMES])} and {len(labels) - MAX_NAMES} more"
    return ", ".join(labels)
