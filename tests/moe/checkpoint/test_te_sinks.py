"""Attention sinks of kernel set `te`, in FP32 beside weights in BF16, in checkpoints."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoint_content import checkpoint_content
from tests.support.transformer_engine.fp8 import SPARSE
from tests.support.transformer_engine.runs import STEPS, Job, experiment, train_all

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
SINKS = "decoder.layers.1.self_attention.core_attention.softmax_offset"


def content(run: Path) -> Any:
    return checkpoint_content(run / f"checkpoints/step-{STEPS:08d}")


def test_sinks_are_saved_and_resumed_with_their_own_state(store: Path, tmp_path: Path) -> None:
    model = SPARSE.model_copy(update={"attention_sinks": True})
    wanted = experiment(store, "te", model=model, dtype="bf16")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train_all([Job(wanted, whole)], num_ranks=2)
    train_all([Job(wanted, resumed, whole)], num_ranks=2)
    found, expected = content(resumed), content(whole)
    assert found.keys() == expected.keys()
    assert [key for key in found if found[key].tobytes() != expected[key].tobytes()] == []
    assert found[SINKS].tobytes() == found[f"optimizer.state.param.{SINKS}"].tobytes()
    assert found[SINKS].any()
