"""Run directories and models for the tests of what is done with a trained model."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moe.config.experiment import Experiment, make_experiment
from moe.config.model import ModelConfig
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import MODEL, make

GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
ATTENTION_KINDS: dict[str, dict[str, Any]] = {
    "grouped_query": {},
    "latent": {
        "num_kv_heads": None,
        "qk_norm": "none",
        "mla": {
            "q_lora_rank": 12,
            "kv_lora_rank": 8,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
        },
    },
    "windows_and_sinks": {
        "sliding_window": 5,
        "full_attention_interval": 2,
        "attention_sinks": True,
        "qk_norm": "none",
    },
    "yarn": {"rope": {"scaling": "yarn", "factor": 4.0, "original_max_seq_len": 16}},
}


def train_run(store: Path, run_dir: Path, num_ranks: int = 1, **sections: Any) -> dict[str, Any]:
    """Train the tests' experiment into a run directory; returns its record."""
    layout = sections.pop("layout", {})
    run_ranks(num_ranks, train_here, make(store, layout, **sections), run_dir)
    record: dict[str, Any] = json.loads((run_dir / "record.json").read_text())
    return record


def train_here(experiment: Experiment, run_dir: Path) -> None:
    """Train an experiment as a rank."""
    from moe.training.train import train
    from parallel.engine.start import start_engine, stop_engine

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    train(experiment, engine, run_dir)
    stop_engine()


@contextmanager
def built(changes: dict[str, Any], seed: int = 5) -> Iterator[Any]:
    """Build the tests' model, changed, with weights large enough to tell tokens apart."""
    from moe.model.build import build_model
    from parallel.engine.start import start_engine, stop_engine
    from parallel.layout.layout import Layout
    from parallel.precision.recipes import Precision

    start_engine(Layout(device="cpu"), seed=0)
    chunk = build_model(model_config(changes), Layout(), Precision(), seed=seed)[0]
    for parameter in chunk.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    chunk.eval()
    yield chunk
    stop_engine()


def model_config(changes: dict[str, Any]) -> ModelConfig:
    """Return the tests' model, changed."""
    values = {"model": MODEL | changes, "train": {"steps": 1, "seq_len": 8, "global_batch_size": 1}}
    return make_experiment(values).model


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """Run `moe ...` in a process forked from the tests' server; returns exit code and outputs."""
    result: tuple[int, str, str] = run_ranks(1, run_command, tuple(map(str, arguments)))[0]
    return result


def command_of_ranks(num_ranks: int, *arguments: str | Path) -> tuple[int, str, str]:
    """Run `moe ...` as forked ranks of one group, as a launcher would start it; returns rank 0's.

    That `--nproc` launches ranks, new interpreters, is in tests/benchmarks/launch/test_restarts.py.
    """
    words = tuple(map(str, arguments))
    result: tuple[int, str, str] = run_ranks(num_ranks, run_command_as_rank, words)[0]
    return result


def run_command(arguments: tuple[str, ...]) -> tuple[int, str, str]:
    """Run `moe ...` in this process, which is no rank of a group any more.

    The outputs include those of processes that the command starts.
    """
    leave_group()
    return run_command_as_rank(arguments)


def run_command_as_rank(arguments: tuple[str, ...]) -> tuple[int, str, str]:
    """Run `moe ...` in this process, as the rank that it is."""
    import moescale

    sys.argv = ["moe", *arguments]
    code: Any = 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                moescale.main()
            except SystemExit as exit_:
                code = exit_.code or 0
        return int(code), _written(out), _written(err)


def leave_group() -> None:
    """Forget that this process was forked as a rank."""
    for name in (*GROUP, "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        os.environ.pop(name, None)


def _written(file: Any) -> str:
    file.flush()
    file.seek(0)
    text: str = file.read()
    return text
