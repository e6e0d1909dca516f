"""Our AdamW is that of its own optimizer: the rest of the process keeps what it has."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import make
from tests.support.transformer_engine.comparison import device
from tests.support.transformer_engine.ranks import run_te_ranks

pytestmark = pytest.mark.engine
TRAIN = {"steps": 3, "warmup_steps": 1, "global_batch_size": 4}


def _kept_by_the_process() -> dict[str, Any]:
    import torch
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    flags = ("Adam", "HAVE_APEX_OR_TE", "USING_APEX_OPTIMIZER", "USING_TE_OPTIMIZER")
    return {
        "torch": (torch.optim.AdamW, torch.optim.AdamW.step, torch.optim.Adam),
        "built": (optimizer.Adam, optimizer.USING_PYTORCH_OPTIMIZER),
        "distributed": tuple(getattr(distrib_optimizer, flag) for flag in flags),
    }


def _train_two(experiment: Any) -> list[list[float]]:
    """Train, and again beside the first, whose state is saved and loaded meanwhile."""
    from moe.training.startup.build import build_trainer
    from moe.training.step import train_step
    from parallel.engine.start import start_engine, stop_engine

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    before, losses, trainers = _kept_by_the_process(), [], []
    for _ in range(2):
        trainers.append(build_trainer(experiment, engine))
        assert _kept_by_the_process() == before
        losses.append([train_step(trainers[-1], index).loss for index in range(3)])
    first = trainers[0].optimizer
    first.load_state_dict(first.state_dict())
    assert _kept_by_the_process() == before
    losses.append([train_step(one, 3).loss for one in trainers])
    for one in trainers:
        one.close()
    stop_engine()
    return losses


@pytest.mark.parametrize("is_distributed", [True, False])
def test_two_trainings_in_one_process(is_distributed: bool, store: Path) -> None:
    experiment = make(store, {"distributed_optimizer": is_distributed}, train=TRAIN)
    first, second, fourth_steps = run_ranks(1, _train_two, experiment)[0]
    assert first == second
    assert len(set(first)) == 3
    # Loading began the moments' optimizer again with what it had.
    assert fourth_steps[0] == fourth_steps[1]


def _train_in(experiments: list[Any]) -> list[tuple[str, list[float]]]:
    from moe.training.startup.execution_report import execution_report
    from moe.training.step import train_step
    from tests.support.layout_equivalence import started

    found = []
    for experiment in experiments:
        with started(experiment) as trainer:
            losses = [train_step(trainer, index).loss for index in range(2)]
            found.append((execution_report(trainer)["optimizer"].rpartition(".")[2], losses))
    return found


@pytest.mark.needs("transformer_engine")
def test_each_kernel_set_has_its_optimizer_after_the_other(store: Path) -> None:
    kinds = ("te", "torch", "te")
    experiments = [
        make(store, {"device": device()}, model={"qk_norm": "head"}, train=TRAIN,
             precision={"kernels": kernels, "dtype": "bf16"})
        for kernels in kinds
    ]  # fmt: skip
    (first, losses), (ours, _), (again, same_losses) = run_te_ranks(1, _train_in, experiments)[0]
    assert (first, ours, again) == ("FusedAdam", "GroupStepAdamW", "FusedAdam")
    assert losses == same_losses
