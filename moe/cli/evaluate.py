"""`moe eval`, `moe audit`, `moe generate`: what a model knows, has memorised, and writes."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from data.options import JsonOption

RunArgument = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Run of `moe train`, a checkpoint, or a converted model."),
]
StepOption = Annotated[
    int | None,
    typer.Option(help="Step of the checkpoint.  [default: the newest]", show_default=False),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(help="Token store.  [default: the run's]", show_default=False),
]
Device = Literal["auto", "cpu", "cuda"]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]


def mount(app: typer.Typer) -> None:
    """Add these commands to the front door."""
    app.command("eval")(evaluate)
    app.command()(audit)
    app.command()(generate)


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
        _run_tasks(run, tasks, task_path, shots, limit, (step, store, device), as_json)
        return
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.loss import Evaluator, open_store
    from moe.routing.replay import RoutingRecord, recording, replaying

    if record_routing is not None:
        _check_writable(record_routing)
    record = None if replay_routing is None else RoutingRecord.load(replay_routing)
    with (
        loaded_model(run, step=step, device=device) as model,
        _progress() as report,
        ExitStack() as stack,
    ):
        opened = open_store(model, store)
        evaluator = Evaluator(model, opened, split or "held_out", max_sequences=sequences)
        maps = evaluator.maps() if routing else None
        if maps is not None:
            stack.enter_context(maps.mapping())
        if record is not None:
            stack.enter_context(replaying([model.chunk], record))
        recorder = None
        if record_routing is not None:
            recorder = stack.enter_context(recording([model.chunk]))
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
    _note_other_numerics(document)
    if recorder is not None and record_routing is not None:
        recorder.save(record_routing)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        from moe.evaluation.tables import print_evaluation

        print_evaluation(document)


def _refuse_unused(with_tasks: bool, of_loss: dict[str, Any], of_tasks: dict[str, Any]) -> None:
    """Refuse an option that would change nothing."""
    from moe.errors import ConfigError

    for name, value in (of_loss if with_tasks else of_tasks).items():
        if value is not None:
            remedy = "is of the loss: leave --tasks out" if with_tasks else "goes with --tasks"
            raise ConfigError(f"{name} {remedy}")


def _run_tasks(  # noqa: PLR0917 - handed on from the command
    run: Path,
    tasks: str,
    task_path: Path | None,
    shots: int | None,
    limit: int | None,
    place: tuple[int | None, Path | None, Device],
    as_json: bool,
) -> None:
    """Run tasks of lm-eval."""
    from importlib import util

    from moe.errors import ConfigError

    if util.find_spec("lm_eval") is None:
        raise ConfigError("--tasks needs lm-eval: pip install 'moescale[eval]'")
    from moe.evaluation.lm_eval_adapter import run_tasks
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.text_interface import text_interface_of

    step, store, device = place
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    with loaded_model(run, step=step, device=device, batch_invariant=True) as model:
        language = text_interface_of(run, store)
        results = run_tasks(model, language, names, task_path=task_path, shots=shots, limit=limit)
        document: dict[str, Any] = {"run_dir": str(run), "step": model.step, **model.numerics()}
    document |= {"limit": limit, "tasks": results}
    _note_other_numerics(document)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        from moe.evaluation.tables import print_tasks

        print_tasks(document)


def _check_writable(path: Path) -> None:
    from data.storage.atomic import check_writable
    from moe.errors import ConfigError

    try:
        check_writable(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}: choose another file") from None


def audit(  # noqa: PLR0913 - a command's options
    run: RunArgument,
    candidates: Annotated[
        int, typer.Option(help="Other secrets each canary is compared with.", min=1)
    ] = 1000,
    passages: Annotated[
        int, typer.Option(help="Passages of each split to be written on.", min=0)
    ] = 100,
    prompt_tokens: Annotated[
        int, typer.Option(help="Tokens given of a passage, and wanted.", min=1)
    ] = 50,
    step: StepOption = None,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say what a model has memorised: planted canaries, and text it writes on verbatim.

    Computes without FP8, also where a run was trained with it.
    """
    from parallel.engine.imports import import_engine

    import_engine()
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.loss import open_store
    from moe.evaluation.memorization_audit import audit as inspect

    with loaded_model(run, step=step, device=device, batch_invariant=True) as model:
        opened = open_store(model, store)
        result = inspect(
            model, opened, candidates=candidates, passages=passages, prompt_tokens=prompt_tokens,
            report=lambda text: typer.echo(f"audit: {text}", err=True),
        )  # fmt: skip
        document: dict[str, Any] = {"run_dir": str(run), "step": model.step, **model.numerics()}
    document |= {"store": str(opened.path), **result.as_json()}
    _note_other_numerics(document)
    typer.echo(json.dumps(document) if as_json else document["finding"])


def generate(  # noqa: PLR0913, PLR0917 - a command's options
    run: RunArgument,
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help="Texts to continue; - reads one.")
    ],
    max_new_tokens: Annotated[int, typer.Option(help="Most new tokens.", min=1)] = 64,
    temperature: Annotated[
        float, typer.Option(help="Logits are divided by it; 0: the likeliest token.", min=0)
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(help="Sample from the likeliest tokens of this probability.", min=1e-6, max=1),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling.", min=0)] = 0,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put each text into the chat template, and answer it.")
    ] = False,
    step: StepOption = None,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Continue texts with a run's newest checkpoint.

    Computes without FP8, also where a run was trained with it.
    """
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    from parallel.engine.imports import import_engine

    import_engine()
    from moe.evaluation.generation import Sampling
    from moe.evaluation.generation import generate as continue_prompts
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.text_interface import text_interface_of

    sampling = Sampling(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    with loaded_model(run, step=step, device=device, batch_invariant=True) as model:
        language = text_interface_of(run, store)
        encode = language.encode_questions if chat else language.encode
        continuations = continue_prompts(
            model.chunk,
            encode(texts),
            sampling,
            stop_ids=language.stop_ids,
            max_seq_len=model.config.max_seq_len,
            vocab_size=min(language.tokenizer.info.vocab_size, model.config.vocab_size),
        )
        header: dict[str, Any] = {"run_dir": str(run), "step": model.step, **model.numerics()}
    _note_other_numerics(header)
    rows = [
        {
            "prompt": text,
            "text": language.tokenizer.decode(one.tokens),
            "tokens": len(one.tokens),
            "stopped": one.stopped,
        }
        for text, one in zip(texts, continuations, strict=True)
    ]
    if as_json:
        typer.echo(json.dumps(header | {"seed": seed, "continuations": rows}))
        return
    for row in rows:
        typer.echo(row["text"] if chat else f"{row['prompt']}{row['text']}")


def _note_other_numerics(document: Mapping[str, Any]) -> None:
    """Say on standard error that a run trained with FP8 was computed without."""
    trained, computed = document["trained_fp8"], document["fp8"]
    if trained != computed:
        typer.echo(
            f"moe: computed in {document['dtype']} without FP8; the run was trained with FP8"
            f" ({trained})",
            err=True,
        )


@contextmanager
def _progress() -> Iterator[Any]:
    """Show how many sequences are done, on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluate", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
