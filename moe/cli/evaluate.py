"""`moe eval`: held-out loss and routing of a trained model, or tasks of lm-eval."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from data.options import JsonOption
from moe.cli.options import (
    Device,
    DeviceOption,
    RunArgument,
    StepOption,
    StoreOption,
    note_other_numerics,
)


def evaluate(  # noqa: PLR0913, PLR0917 - a command's options
    run: RunArgument,
    split: Annotated[
        Literal["held_out", "train"] | None,
        typer.Option(help="Part of the store.  [default: held_out]", show_default=False),
    ] = None,
    sequences: Annotated[
        int | None,
        typer.Option(help="Most sequences a source.  [default: all]", show_default=False, min=1),
    ] = None,
    step: StepOption = None,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    routing: Annotated[
        bool, typer.Option("--routing", help="Say which experts each source meets.")
    ] = False,
    record_routing: Annotated[
        Path | None, typer.Option(help="Write every routing decision to this file.")
    ] = None,
    replay_routing: Annotated[
        Path | None, typer.Option(help="Take the experts of this file instead of choosing.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-eval in place of the loss, with commas between."),
    ] = None,
    task_path: Annotated[
        Path | None, typer.Option(help="Folder with more tasks (lm-eval's YAML).")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Examples before each question of a task.", min=0)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Most questions of a task.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure loss and perplexity of a run's newest checkpoint, or run tasks of lm-eval.

    The loss is computed with the emulated FP8 a run was trained with, tasks without any FP8.
    """
    _refuse_unused(
        tasks is not None,
        {"--split": split, "--sequences": sequences, "--routing": routing or None,
         "--record-routing": record_routing, "--replay-routing": replay_routing},
        {"--task-path": task_path, "--shots": shots, "--limit": limit},
    )  # fmt: skip
    from parallel.engine.imports import import_engine

    import_engine()
    if tasks is not None:
        document = _task_metrics(run, tasks, task_path, shots, limit, (step, store, device))
    else:
        document = _held_out_loss(
            run,
            (step, store, device),
            split=split or "held_out",
            sequences=sequences,
            routing=routing,
            record_routing=record_routing,
            replay_routing=replay_routing,
        )
    note_other_numerics(document)
    if as_json:
        typer.echo(json.dumps(document))
        return
    from moe.evaluation.tables import print_evaluation, print_tasks

    (print_evaluation if tasks is None else print_tasks)(document)


def _held_out_loss(
    run: Path,
    source: tuple[int | None, Path | None, Device],
    *,
    split: Literal["held_out", "train"],
    sequences: int | None,
    routing: bool,
    record_routing: Path | None,
    replay_routing: Path | None,
) -> dict[str, Any]:
    """Measure the loss on a split, by source; record or replay routing on the way."""
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.loss import Evaluator, open_store
    from moe.routing.record import RoutingRecord
    from moe.routing.replay import recording, replaying

    step, store, device = source
    if record_routing is not None:
        _check_writable(record_routing)
    replayed = None if replay_routing is None else RoutingRecord.load(replay_routing)
    with (
        loaded_model(run, step=step, device=device) as model,
        _progress() as report,
        ExitStack() as stack,
    ):
        opened = open_store(model, store)
        evaluator = Evaluator(model, opened, split, max_sequences=sequences)
        maps = evaluator.maps() if routing else None
        if maps is not None:
            stack.enter_context(maps.mapping())
        if replayed is not None:
            stack.enter_context(replaying([model.chunk], replayed))
        recorded = None
        if record_routing is not None:
            recorded = stack.enter_context(recording([model.chunk], evaluator.record_origin()))
        evaluation = evaluator.run(report)
        document = {
            "run_dir": str(run),
            "checkpoint": str(model.checkpoint),
            "step": model.step,
            "device": model.device.type,
            **model.numerics(),
            "store": str(opened.path),
            "split": evaluation.split,
            **{k: v for k, v in evaluation.total.as_json().items() if k != "source"},
            "sources": [source.as_json() for source in evaluation.sources],
            "routing": None if maps is None else maps.pop(),
        }
    if recorded is not None and record_routing is not None:
        recorded.save(record_routing)
    return document


def _refuse_unused(with_tasks: bool, of_loss: dict[str, Any], of_tasks: dict[str, Any]) -> None:
    """Refuse an option that would change nothing."""
    from moe.errors import ConfigError

    for name, value in (of_loss if with_tasks else of_tasks).items():
        if value is not None:
            remedy = "is of the loss: leave --tasks out" if with_tasks else "goes with --tasks"
            raise ConfigError(f"{name} {remedy}")


def _task_metrics(
    run: Path,
    tasks: str,
    task_path: Path | None,
    shots: int | None,
    limit: int | None,
    source: tuple[int | None, Path | None, Device],
) -> dict[str, Any]:
    """Run tasks of lm-eval; returns their metrics."""
    from importlib import util

    from moe.errors import ConfigError

    if util.find_spec("lm_eval") is None:
        raise ConfigError("--tasks needs lm-eval: pip install 'moescale[eval]'")
    from moe.evaluation.lm_eval_adapter import run_tasks
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.text_interface import text_interface_of

    step, store, device = source
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    with loaded_model(run, step=step, device=device, batch_invariant=True) as model:
        language = text_interface_of(run, store)
        results = run_tasks(model, language, names, task_path=task_path, shots=shots, limit=limit)
        document: dict[str, Any] = {"run_dir": str(run), "step": model.step, **model.numerics()}
    return document | {"limit": limit, "tasks": results}


def _check_writable(path: Path) -> None:
    from data.storage.atomic import check_writable
    from moe.errors import ConfigError

    try:
        check_writable(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}: choose another file") from None


@contextmanager
def _progress() -> Iterator[Any]:
    """Show how many sequences are done, on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluate", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
