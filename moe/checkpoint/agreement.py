"""Whether a checkpoint says one thing of how far the run was: others may have written it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moe.checkpoint.directory import STATE, step_of
from moe.checkpoint.index import read_index
from moe.config.train import TrainConfig
from moe.errors import ConfigError


def check_agreement(checkpoint: Path, state: Mapping[str, Any], train: TrainConfig) -> None:
    """Check a checkpoint's state against its name, its optimizer and the experiment.

    Args:
        checkpoint: Directory of a run's checkpoint, or of a dump.
        state: As `read_state` returns it, with `data`.
        train: How the run trains, or how it would go on.

    Raises:
        ConfigError: They disagree; names the key and both values.
    """
    for key, value, rule in _disagreements(checkpoint, state, train):
        raise ConfigError(f"{checkpoint / STATE}: {key} = {value}, but {rule}: restore the file")


def _disagreements(
    checkpoint: Path, state: Mapping[str, Any], train: TrainConfig
) -> Iterator[tuple[str, Any, str]]:
    """Yield key, value and the rule it breaks."""
    step, batch = state["step"], train.global_batch_size
    if step != step_of(checkpoint):
        yield "step", step, f"the directory is that of step {step_of(checkpoint)}"
    if step > train.steps:
        yield "step", step, f"the run has train.steps = {train.steps}"
    for updates in read_index(checkpoint).common.optimizer_steps():
        if updates > step:
            yield "step", step, f"the optimizer has made {updates} steps"
    if state["data"]["next_sample"] != step * batch:
        rule = f"{step} steps of train.global_batch_size = {batch} end at {step * batch}"
        yield "data.next_sample", state["data"]["next_sample"], rule
    positions = step * train.positions_per_step
    if state.get("tokens") is not None and state["tokens"] > positions:
        yield "tokens", state["tokens"], f"{step} steps have {positions} positions"
    rejected = state.get("rejected_steps")
    if rejected is not None and rejected > step:
        yield "rejected_steps", rejected, f"the run has made {step} steps"
    first, samples = (step - 1) * batch, state.get("samples")
    if samples is not None and samples != [first, first + batch]:
        yield "samples", samples, f"step {step} has {first} to {first + batch}"
