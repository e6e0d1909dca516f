"""Held-out loss of models minus that of the first one, after equal tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.comparison.seed_groups import SeedGroup
from parallel.measurement.intervals import MeanInterval, difference_of_means


@dataclass(frozen=True)
class LossDifference:
    """How much higher a model's held-out loss is than the first model's after `tokens`."""

    tokens: int
    nats: MeanInterval
    """Difference of the means over seeds, nats/token."""


def loss_differences(groups: Sequence[SeedGroup]) -> list[list[LossDifference]]:
    """Return the differences of each model but the first, in order of tokens.

    They are known where all seeds of both models were evaluated after exactly as many tokens:
    nothing is interpolated.
    """
    first = _losses_by_tokens(groups[0])
    return [
        [
            LossDifference(tokens, difference_of_means(losses, first[tokens]))
            for tokens, losses in sorted(_losses_by_tokens(group).items())
            if tokens in first
        ]
        for group in groups[1:]
    ]


def _losses_by_tokens(group: SeedGroup) -> dict[int, list[float]]:
    """Return the losses of all seeds by the numbers of tokens after which all were evaluated."""
    runs = [
        {row["tokens"]: row["loss"] for row in run.evaluations if row["loss"] is not None}
        for run in group.runs
    ]
    shared = set(runs[0]).intersection(*runs[1:])
    return {tokens: [run[tokens] for run in runs] for tokens in shared}
