"""The `moe slurm` commands; heavy imports wait inside them."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from slurm.cluster.submission_folder import Submission
    from slurm.job.plan import JobPlan, SubmissionPaths

app = typer.Typer(no_args_is_help=True)

RunsOption = Annotated[
    Path, typer.Option("--runs-dir", help="Folder of all runs, on the shared file system.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: section.key=value.")
]
NameOption = Annotated[str | None, typer.Option(help="Job name.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the exact batch script; submit nothing.")
]
TestOption = Annotated[
    bool, typer.Option("--test-only", help="Ask SLURM when it could run; submit nothing.")
]
JobArgument = Annotated[
    str, typer.Argument(help="A job id, a submission's folder or the start of its name.")
]
TaskOption = Annotated[int, typer.Option(help="Task of an array.", min=0)]
RUNS = Path("runs")


@app.callback()
def _about() -> None:
    """Batch jobs on a SLURM cluster: submit, survive, account."""


@app.command()
def submit(
    experiments: Annotated[
        list[Path],
        typer.Argument(help="Experiment files; several, or a folder, make one array."),
    ],
    overrides: SetOption = None,
    name: NameOption = None,
    runs_dir: RunsOption = RUNS,
    dry_run: DryRunOption = False,
    test_only: TestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit training runs; submitted again, only what is missing runs."""
    from slurm.job.cluster_profile import load_profiles
    from slurm.job.plan import plan_training

    profiles = load_profiles()
    _submit(
        lambda paths: plan_training(experiments, overrides or [], profiles, paths),
        runs_dir,
        name,
        dry_run=dry_run,
        test_only=test_only,
        as_json=as_json,
    )


@app.command(context_settings={"ignore_unknown_options": True})
def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(help="A moe command after `--`; {task} becomes 1 to N, {tasks} N."),
    ],
    tasks: Annotated[
        int | None, typer.Option(help="Make an array of N tasks of it.", min=1)
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file whose [slurm] table is taken.")
    ] = None,
    overrides: SetOption = None,
    name: NameOption = None,
    runs_dir: RunsOption = RUNS,
    dry_run: DryRunOption = False,
    test_only: TestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit any moe command: data preparation in shards, a benchmark, a conversion.

    Example: moe slurm run --tasks 16 -- data build corpus -o store --shard {task}/{tasks}
    """
    from slurm.job.cluster_profile import load_profiles
    from slurm.job.plan import plan_command, slurm_section

    section, profiles = slurm_section(config, overrides or []), load_profiles()

    def plan(paths: "SubmissionPaths") -> "JobPlan":
        planned = plan_command(command, tasks, section, profiles, paths)
        _check_command(context.find_root().command, planned.job.commands[0])
        return planned

    _submit(
        plan,
        runs_dir,
        name,
        dry_run=dry_run,
        test_only=test_only,
        as_json=as_json,
    )


@app.command()
def status(
    job: Annotated[str | None, typer.Argument(help="As for `logs`; default: all.")] = None,
    watch: Annotated[
        float | None,
        typer.Option(help="Show it again every so many seconds; with --json a line each.", min=0.5),
    ] = None,
    runs_dir: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Show queue, progress, tokens/s, loss, time left and joules."""
    from slurm.cluster.client import Client
    from slurm.cluster.submission_folder import all_submissions
    from slurm.views.status import watch_status
    from slurm.views.tables import console, show_live, status_json, status_tables

    def chosen() -> list["Submission"]:
        return [_find(runs_dir, job)] if job else all_submissions(runs_dir.resolve())

    updates = watch_status(chosen, Client(), watch or 0)
    if watch is None and as_json:
        _print_json(status_json(next(updates)))
    elif watch is None:
        found = next(updates)
        console().print(status_tables(found) if found else f"nothing submitted in {runs_dir}")
    elif as_json:
        for update in updates:
            typer.echo(json.dumps(status_json(update)))
    else:
        show_live(updates)


@app.command()
def logs(
    job: JobArgument,
    task: TaskOption = 0,
    rank: Annotated[int, typer.Option(help="Rank whose log is shown.", min=0)] = 0,
    attempt: Annotated[
        int | None, typer.Option(help="Start to show, from 1. Default: the newest.", min=1)
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines of the log.", min=0)] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on while the task runs.")
    ] = False,
    runs_dir: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Show errors first, then one rank's log."""
    from slurm.cluster.client import Client
    from slurm.errors import JobError
    from slurm.views.tables import follow_log, logs_json, logs_text

    if as_json and follow:
        raise JobError("--follow shows text as it comes, --json one document: choose one")
    submission = _find(runs_dir, job)
    task = _task_index(job, task) or 0
    if as_json:
        _print_json(logs_json(submission, task, attempt, rank, lines))
        return
    if follow:
        for text in follow_log(submission, task, rank, Client()):
            typer.echo(text, nl=False)
        return
    typer.echo(logs_text(submission, task, attempt, rank, lines))


@app.command()
def cancel(
    job: JobArgument,
    task: Annotated[int | None, typer.Option(help="Only this task of an array.", min=0)] = None,
    runs_dir: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Cancel a submission, or one task; running ranks write a checkpoint if time allows."""
    from slurm.cluster.client import Client
    from slurm.cluster.control import cancel_tasks

    submission = _find(runs_dir, job)
    cancelled = cancel_tasks(submission, _task_index(job, task), Client())
    _print_answer(
        {"cancelled": cancelled}, f"cancelled: {', '.join(cancelled) or 'nothing'}", as_json
    )


@app.command()
def requeue(
    job: JobArgument,
    task: Annotated[int | None, typer.Option(help="Only this task of an array.", min=0)] = None,
    runs_dir: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Requeue what runs, and submit again what ended unfinished; restarts count from 0."""
    from slurm.cluster.client import Client
    from slurm.cluster.control import requeue_tasks

    done = requeue_tasks(_find(runs_dir, job), _task_index(job, task), Client())
    text = "; ".join(f"{what}: {', '.join(ids)}" for what, ids in done.items() if ids)
    _print_answer(done, text or "nothing: all is finished or waiting", as_json)


@app.command()
def accounting(job: JobArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Show what a submission used: time, ends, energy by sacct beside the run's own meter."""
    from slurm.cluster.client import Client
    from slurm.views.accounting import usages
    from slurm.views.tables import console, usage_table

    source, found = usages(
        _find(runs_dir, job), Client(), lambda text: typer.echo(f"moe: {text}", err=True)
    )
    if as_json:
        _print_json({"source": source, "tasks": [usage.to_json() for usage in found]})
    else:
        console().print(usage_table(source, found))


def _submit(
    make_plan: "Callable[[SubmissionPaths], JobPlan]",
    runs_dir: Path,
    name: str | None,
    *,
    dry_run: bool,
    test_only: bool,
    as_json: bool,
) -> None:
    import os
    import shutil
    import tempfile
    from errno import EDQUOT, ENOSPC

    from slurm.cluster.client import Client
    from slurm.cluster.sbatch_variables import unused_variables
    from slurm.cluster.submit import dry_run_on_cluster
    from slurm.cluster.submit import submit as submit_plan
    from slurm.errors import JobError, SlurmError
    from slurm.job.batch_script import render
    from slurm.job.code_snapshot import read_code, store_code
    from slurm.job.plan import SubmissionPaths
    from slurm.views.tables import receipt_json, receipt_text

    with tempfile.TemporaryDirectory() as folder:
        snapshot = read_code(Path(folder))
        paths = SubmissionPaths(
            runs_dir=runs_dir.resolve(), work_dir=Path.cwd(), code_tree=snapshot.tree, name=name
        )
        plan = make_plan(paths)
        for sentence in (*unused_variables(os.environ), *plan.warnings):
            typer.echo(f"moe: {sentence}", err=True)
        if dry_run:
            script = render(plan.job)
            _print_answer({"script": script}, script.removesuffix("\n"), as_json)
        elif test_only:
            answer = dry_run_on_cluster(plan, Client())
            _print_answer({"answer": answer}, answer, as_json)
        else:
            try:
                snapshot = store_code(snapshot, paths.submissions / "code")
                receipt = submit_plan(plan, snapshot, Client())
            except OSError as error:
                is_full = isinstance(error, shutil.Error) or error.errno in {ENOSPC, EDQUOT}
                # Of a folder's copy it tells each file; the first is enough.
                why = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
                kind = SlurmError if is_full else JobError
                raise kind(f"--runs-dir {runs_dir}: {why or error}") from None
            _print_answer(receipt_json(receipt), receipt_text(receipt), as_json)


def _check_command(command: Any, words: "Sequence[str]") -> None:
    """Have a `moe` command read its arguments, without running it.

    Raises:
        JobError: It does not take them; says why.
    """
    from slurm.errors import JobError

    called, left = f"moe {shlex.join(words)}", list(words)
    while commands := getattr(command, "commands", None):
        name = left.pop(0) if left else ""
        if name not in commands:
            raise JobError(f"{called}: no command {name!r} (there: {', '.join(commands)})")
        command = commands[name]
    try:
        command.make_context(called, left)
    except Exception as error:
        if not hasattr(error, "format_message"):  # no complaint about usage
            raise
        raise JobError(f"{called}: {error.format_message()}") from None


def _find(runs_dir: Path, job: str) -> "Submission":
    from slurm.cluster.submission_folder import find_submission

    return find_submission(runs_dir.resolve(), job)


def _task_index(job: str, task: int | None) -> int | None:
    """Return the task that `123_4` names, else the option."""
    index = job.rpartition("_")[2]
    is_id = "_" in job and job.replace("_", "").isdigit()
    return int(index) if is_id else task


def _print_answer(values: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        _print_json(values)
    else:
        typer.echo(text)


def _print_json(values: dict[str, Any]) -> None:
    typer.echo(json.dumps(values, indent=1))
