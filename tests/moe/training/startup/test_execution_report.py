"""What was built is compared with what was asked for, and recorded."""

from pathlib import Path

import pytest

from tests.support.distributed import RankFailedError
from tests.support.fault_injection import record, run
from tests.support.layout_equivalence import make

TRAIN = {"steps": 2, "warmup_steps": 1, "global_batch_size": 4}


def _build_other_dispatcher() -> None:
    from moe.model import mcore_config

    real = mcore_config._moe_values
    mcore_config._moe_values = lambda model, layout: real(  # type: ignore[assignment]
        model, layout.model_copy(update={"dispatcher": "alltoall"})
    )


def test_a_model_other_than_requested_is_refused(store: Path, tmp_path: Path) -> None:
    experiment = make(store, {"dispatcher": "allgather"}, train=TRAIN)
    message = "ExecutionError: parallel.dispatcher: asked for 'MoEAllGather.*has 'MoEAlltoAll"
    with pytest.raises(RankFailedError, match=message):
        run(1, experiment, tmp_path / "run", prepare=_build_other_dispatcher)
    run(1, experiment, tmp_path / "true")
    execution = record(tmp_path / "true")["execution"]
    assert execution["dispatcher"].endswith(".MoEAllGatherTokenDispatcher")
    assert execution["apex"] == {"fused_adam": False, "fused_norm": False, "amp_C": False}
