"""`moe audit`: what a model has memorized."""

import json
from typing import Annotated, Any

import typer

from data.options import JsonOption
from moe.cli.options import DeviceOption, RunArgument, StepOption, StoreOption, note_other_numerics


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
    """Say what a model has memorized: planted canaries, and text it writes on verbatim.

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
    note_other_numerics(document)
    typer.echo(json.dumps(document) if as_json else document["finding"])
