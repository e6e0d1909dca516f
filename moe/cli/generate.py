"""`moe generate`: continue texts with a trained model."""

import json
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from data.options import JsonOption
from moe.cli.options import DeviceOption, RunArgument, StepOption, StoreOption, note_other_numerics


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
    texts = [_read_prompt(prompt, number) for number, prompt in enumerate(prompts, 1)]
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
    note_other_numerics(header)
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


def _read_prompt(prompt: str, number: int) -> str:
    """Return a prompt of the command line, or of standard input.

    Raises:
        DataError: It is not UTF-8.
    """
    from data.json_text import check_text

    if prompt == "-":
        if isinstance(sys.stdin, TextIOWrapper):
            # Bytes that are no text become lone surrogates, as in an argument.
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        prompt = sys.stdin.read()
    return check_text(prompt, f"prompt {number}")
