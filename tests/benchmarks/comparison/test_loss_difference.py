"""Held-out loss against the first model's, where both were evaluated after equal tokens."""

from pathlib import Path

import pytest

from benchmarks.comparison.loss_difference import loss_differences
from benchmarks.comparison.seed_groups import SeedGroup
from moe.runs.run import Run


def group(name: str, *losses: dict[int, float | None]) -> SeedGroup:
    runs = [
        Run(
            Path(f"{name}-{seed}"),
            {"run_id": f"{name}-{seed}"},
            evaluations=[{"step": t, "tokens": t, "loss": loss} for t, loss in by_tokens.items()],
        )
        for seed, by_tokens in enumerate(losses)
    ]
    return SeedGroup(name, tuple(runs))


def test_differences_are_of_means_at_tokens_that_all_share() -> None:
    first = group("a", {1: 5.0, 2: 4.0, 4: 3.0}, {1: 5.2, 2: 4.2, 3: 3.5})
    second = group("b", {4: 2.0, 2: 3.9, 1: 5.0}, {2: 4.1, 1: 5.4})
    third = group("c", {1: None, 2: 4.5, 3: 1.0})
    one, other = loss_differences([first, second, third])
    assert [d.tokens for d in one] == [1, 2]
    assert [d.nats.mean for d in one] == pytest.approx([0.1, -0.1])
    assert all(d.nats.half_width for d in one)
    assert [(d.tokens, d.nats.half_width) for d in other] == [(2, None)]
    assert other[0].nats.mean == pytest.approx(0.4)
    assert loss_differences([first]) == []
    assert loss_differences([first, group("d", {7: 1.0})]) == [[]]
