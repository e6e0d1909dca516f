"""What `make gpu` runs on a card is valid before a card is at hand."""

import re
import shlex
from itertools import groupby

import pytest
import typer

import moescale
from benchmarks.bench.peer_transformers import _architecture
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_evidence.tasks import ALL_S, PART_S, PARTS, TASKS, Task, tasks_of
from data.dotted_keys import apply_override
from moe.config.experiment import load_model, make_experiment
from moe.cost.model_shape import batch_of, shape_of
from parallel.precision.fp8_support import fp8_faults

COMMANDS = [
    pytest.param(words, id=f"{task.name} on {device}")
    for task in TASKS
    for device in ("cuda", "cpu")
    if task.program == "moe" and (words := task.command(device, cards=8)) is not None
]
STEPS = [task for task in TASKS if task.on_card.startswith("bench step")]
HOPPER = (9, 0)


def test_parts_fit_in_their_time() -> None:
    by_part = {part: list(tasks) for part, tasks in groupby(TASKS, lambda task: task.part)}
    assert list(by_part) == list(PARTS) == [1, 2, 3, 4]
    for tasks in by_part.values():
        assert sum(task.timeout_s for task in tasks) <= PART_S
    assert sum(task.timeout_s for task in TASKS) <= ALL_S


def test_names_tell_tasks_apart() -> None:
    assert len({task.name for task in TASKS}) == len(TASKS)


@pytest.mark.parametrize("words", COMMANDS)
def test_command_is_one_that_moe_takes(words: str) -> None:
    command = typer.main.get_command(moescale.app)
    _, name, *rest = words.split()
    command = command.commands["bench"].commands[name]
    assert command.make_context(name, [*rest, "--set", "parallel.device=cpu", "--out", "x"]).params


@pytest.mark.parametrize("task", STEPS, ids=lambda task: task.name)
def test_models_settings_and_peers_exist(task: Task) -> None:
    words = shlex.split(task.on_card)
    model = load_model(words[2])
    overrides: dict[str, object] = {}
    for word, value in zip(words, words[1:], strict=False):
        if word == "--set":
            apply_override(overrides, value)
    train = {"steps": 1, "seq_len": 4096, "micro_batch_size": 2, "global_batch_size": 2}
    values = {"model": model.model_dump(exclude_none=True), "train": train}
    experiment = make_experiment({**values, **overrides})
    batch, shape = batch_of(experiment.train), shape_of(experiment.model)
    precision = experiment.precision
    assert fp8_faults(precision, experiment.parallel, shape, batch, HOPPER) == []
    assert precision.is_native_fp8 == ("FP8" in task.needs)
    assert (precision.kernels == "te") == ("Transformer Engine" in task.needs)
    if "--peer" in words:
        assert _architecture(model)[0] in ("Olmoe", "Qwen3Moe")


def test_parts_are_chosen() -> None:
    assert tasks_of([]) == list(TASKS)
    assert {task.part for task in tasks_of([4, 2])} == {2, 4}
    with pytest.raises(BenchmarkError, match=re.escape("--part 5: there is 1, 2, 3, 4")):
        tasks_of([5])
