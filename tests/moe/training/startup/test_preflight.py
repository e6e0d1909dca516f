"""Checks before the start: native FP8 needs a card and sizes that support the recipe."""

from typing import Any

import pytest
import torch

from moe.config.experiment import Experiment, make_experiment
from moe.errors import ConfigError
from moe.training.startup.preflight import check_before_start
from parallel.errors import ParallelError

NATIVE = {"kernels": "te", "dtype": "bf16", "fp8": "blockwise"}


def experiment(**train: Any) -> Experiment:
    """An experiment with native FP8 whose store does not exist: data are checked last."""
    return make_experiment(
        {
            "model": {"preset": "tiny"},
            "train": {"steps": 1, "seq_len": 64, "global_batch_size": 2, **train},
            "data": {"store": "/nowhere/store"},
            "precision": NATIVE,
        }
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pretend that torch finds a GPU of the compute capability that the test names."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: request.param)


def test_sizes_are_checked_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = (
        r'^precision.fp8 = "blockwise": seq_len \* micro_batch_size / cp = 8 is not a multiple'
        r" of 16: change it or the layout, or choose another recipe$"
    )
    with pytest.raises(ParallelError, match=message) as refusal:
        check_before_start(experiment(seq_len=8, micro_batch_size=1), 1)
    assert refusal.value.exit_code == 2


def test_sizes_that_fit_meet_the_refusal_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match='precision.kernels = "te"'):
        check_before_start(experiment(micro_batch_size=1), 1)


@pytest.mark.parametrize("gpu", [(8, 9)], indirect=True)
@pytest.mark.usefixtures("gpu")
def test_a_card_without_the_recipe_is_refused() -> None:
    message = '"blockwise" needs compute capability 9.0 .*8.9: choose from "delayed", "current"$'
    with pytest.raises(ParallelError, match=message):
        check_before_start(experiment(micro_batch_size=1), 1)


@pytest.mark.parametrize("gpu", [(9, 0)], indirect=True)
@pytest.mark.usefixtures("gpu")
def test_a_card_with_the_recipe_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next check is Transformer Engine's."""
    monkeypatch.setattr("moe.training.startup.preflight.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="Transformer Engine is not installed"):
        check_before_start(experiment(micro_batch_size=1), 1)
