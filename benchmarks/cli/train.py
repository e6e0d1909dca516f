"""`moe train`: one process, several, or one rank of a cluster; the same experiment file."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.cli.options import NprocOption


def train(  # noqa: PLR0913, PLR0917 - a command's options
    experiment: Annotated[Path, typer.Argument(help="Experiment file (TOML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. train.steps=100."),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where the run lies.  [default: runs/NAME-HASH]", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint.")
    ] = False,
    step: Annotated[
        int | None,
        typer.Option(
            help="Continue from this step's checkpoint; later ones are set aside.",
            min=1,
            show_default=False,
        ),
    ] = None,
    nproc: NprocOption = 1,
    max_restarts: Annotated[
        int, typer.Option(help="Times to resume by itself after a process failed.", min=0)
    ] = 0,
    replay: Annotated[
        int | None,
        typer.Option(
            help="Train a step that a guard refused once more, from its dump.",
            min=1,
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show experiment, layout, cost and memory; do not start."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run's final record.")] = False,
) -> None:
    """Train a model and measure it: loss, speed, energy, expert load."""
    from moe.config.experiment import load_experiment

    resolved = load_experiment(experiment, overrides or ())
    if dry_run:
        from benchmarks.launch.dry_run import show

        show(resolved, nproc, as_json=as_json)
        return
    from benchmarks.launch.progress_bar import TrainingProgress
    from benchmarks.launch.training import replay_step, run_directory, run_training
    from moe.config.locating import EXPERIMENT_FILE
    from parallel.engine.launch import is_rank_of_a_group

    directory = run_directory(resolved, run_dir)
    if replay is not None:
        typer.echo(json.dumps(replay_step(resolved, directory, replay)))
        return
    if resume and not (directory / EXPERIMENT_FILE).exists() and os.environ.get("RANK", "0") == "0":
        typer.echo(f"moe: no run to resume in {directory}: a new one starts", err=True)
    record = run_training(
        experiment,
        overrides or [],
        directory,
        resume=resume,
        from_step=step,
        nproc=nproc,
        max_restarts=max_restarts,
        progress=TrainingProgress(),
    )
    if is_rank_of_a_group() and os.environ["RANK"] != "0":
        return
    _print_result(record, as_json=as_json)


def _print_result(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(record))
        return
    loss, reason = record["final_loss"], record.get("final_loss_reason")
    missing = f"not measured ({reason or 'the reason was not recorded'})"
    held_out = missing if loss is None else f"{loss:.4f} nats a token"
    typer.echo(f"held-out loss {held_out} after {record['tokens']:,} tokens")
    typer.echo(f"{record['tokens_per_s']:,.0f} tokens/s; run directory {record['run_dir']}")
