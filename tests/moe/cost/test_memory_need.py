"""What a run needs of memory: sure terms, modelled ones, and what is not modelled."""

from typing import Any

import pytest

from moe.config.experiment import Experiment, make_experiment
from moe.cost.memory_need import MemoryNeed, fullest, stage_needs, summed, workload_of
from parallel.layout.placement import place
from parallel.planner.device_memory import device_memory
from parallel.planner.memory import stage_memory


def experiment(**sections: Any) -> Experiment:
    train = {"steps": 1, "seq_len": 64, "global_batch_size": 8} | sections.pop("train", {})
    return make_experiment({"model": {"preset": "tiny"}, "train": train, **sections})


def test_stages_need_their_state_and_their_modelled_peak() -> None:
    one = experiment(parallel={"pp": 2})
    placement = place(one.parallel, 4)
    work = workload_of(one, placement)
    for stage, need in enumerate(stage_needs(one, placement, on_gpu=False)):
        memory = stage_memory(work, stage)
        assert need.sure == {
            "parameters": memory.parameter_bytes,
            "gradients": memory.gradient_bytes,
            "optimizer": memory.optimizer_bytes,
        }
        assert need.sure_bytes < (need.modelled_bytes or 0) == memory.total_bytes


def test_a_gpu_needs_what_is_beside_tensors_too() -> None:
    one = experiment()
    placement = place(one.parallel, 1)
    work = workload_of(one, placement)
    (need,) = stage_needs(one, placement, on_gpu=True)
    assert need.modelled_bytes == device_memory(work, stage_memory(work, 0)).total_bytes


def test_ranks_of_a_machine_need_the_sum() -> None:
    one = experiment(parallel={"pp": 2})
    first, last = stage_needs(one, place(one.parallel, 2), on_gpu=False)
    both = summed([first, last, last])
    assert both.sure_bytes == first.sure_bytes + 2 * last.sure_bytes
    assert both.modelled_bytes == (first.modelled_bytes or 0) + 2 * (last.modelled_bytes or 0)


def test_the_stage_of_most_state_need_not_have_the_highest_peak() -> None:
    first = MemoryNeed(sure={"parameters": 5, "optimizer": 1}, modelled_bytes=30)
    last = MemoryNeed(sure={"parameters": 4, "optimizer": 8}, modelled_bytes=20)
    for stages in ([first, last], [last, first]):
        assert fullest(stages) == MemoryNeed(sure=last.sure, modelled_bytes=30)


def test_frozen_parameters_leave_their_weights_alone_sure() -> None:
    """How many learn is not known before the model is built: nothing is claimed."""
    one = experiment(train={"trainable": ["*.router.*"]})
    (need,) = stage_needs(one, place(one.parallel, 1), on_gpu=False)
    assert list(need.sure) == ["parameters"]
    assert need.modelled_bytes is None
    assert summed([need, need]).modelled_bytes is None
    assert fullest([need, need]) == need
    (whole,) = stage_needs(
        experiment(train={"trainable": ["*", "x"]}), place(one.parallel, 1), on_gpu=False
    )
    assert whole.modelled_bytes is not None


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_preferences_need_the_reference_model_too(dtype: str) -> None:
    plain = experiment(precision={"dtype": dtype}, train={"micro_batch_size": 2})
    dpo = {"mode": "dpo", "init": "/base", "micro_batch_size": 2}
    tuned = experiment(precision={"dtype": dtype}, train=dpo)
    placement = place(plain.parallel, 2)
    (alone,) = stage_needs(plain, placement, on_gpu=False)
    (both,) = stage_needs(tuned, placement, on_gpu=False)
    reference = both.sure["the reference"]
    # Its weights lie outside the optimizer's padded buffers.
    assert 0 <= alone.sure["parameters"] - reference < 4096
    assert both.modelled_bytes == (alone.modelled_bytes or 0) + reference
