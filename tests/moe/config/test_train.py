"""The `[train]` section: its learning rate, by hand."""

from math import cos, pi
from typing import Any

import pytest

from moe.config.train import TrainConfig


def rates(**keys: Any) -> list[float]:
    values = {"seq_len": 8, "global_batch_size": 1, "learning_rate": 1.0, "steps": 6, **keys}
    train = TrainConfig(**values)
    return [train.learning_rate_at(step) for step in range(1, train.steps + 1)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"schedule": "constant", "warmup_steps": 2}, [0.5, 1, 1, 1, 1, 1]),
        (
            {"schedule": "linear", "warmup_steps": 2, "min_learning_rate": 0.2},
            [0.5, 1, 0.8, 0.6, 0.4, 0.2],
        ),
        (
            {"schedule": "wsd", "warmup_steps": 1, "decay_steps": 4},
            [1, 1, 0.75, 0.5, 0.25, 0],
        ),
        (
            {"warmup_steps": 2, "min_learning_rate": 0.2},
            [0.5, 1, *(0.2 + 0.4 * (1 + cos(pi * t / 4)) for t in range(1, 5))],
        ),
        ({"steps": 3, "warmup_steps": 3}, [1 / 3, 2 / 3, 1]),
    ],
    ids=["constant", "linear", "wsd", "cosine", "only_warmup"],
)
def test_learning_rate(keys: dict[str, Any], expected: list[float]) -> None:
    assert rates(**keys) == pytest.approx(expected)
