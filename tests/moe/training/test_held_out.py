"""A held-out loss that is not there has a reason."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.distributed import run_ranks


def _reasons(batch: int, held_out: list[int]) -> list[str]:
    from moe.training.held_out import missing_loss_reason

    experiment = SimpleNamespace(train=SimpleNamespace(global_batch_size=batch))
    trainers: list[Any] = [
        SimpleNamespace(experiment=experiment, held_out=SimpleNamespace(num_sequences=number))
        for number in held_out
    ]
    return [missing_loss_reason(trainer) for trainer in trainers]


@pytest.mark.engine
def test_no_held_out_data_is_told_from_too_little() -> None:
    assert run_ranks(1, _reasons, 4, [0, 3, 4])[0] == [
        "no held-out data",
        "3 held-out sequences are fewer than train.global_batch_size = 4",
        "it is infinite or not a number",
    ]
