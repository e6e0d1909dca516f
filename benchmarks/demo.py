"""`moe demo`: from text to a dense and a sparse model, trained, measured and compared."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison.finding import finding
from benchmarks.launch.progress_bar import TrainingProgress
from benchmarks.launch.training import train_rank
from benchmarks.report.write import ReportPaths, write_report
from benchmarks.standard_library import standard_library
from data.storage.atomic import write_text
from moe.config.experiment import Experiment, make_experiment
from moe.errors import ConfigError
from moe.runs.reader import read_runs
from moe.runs.record import read_record_if_any

VOCABULARY = 4096
# Turns that each model takes, so that what else the machine does meets both; each has at least
# so many steps, since to begin a turn takes time.
TURNS, MIN_STEPS_A_TURN = 3, 50

_SHARED: dict[str, Any] = {
    "num_layers": 4,
    "hidden_size": 128,
    "num_heads": 4,
    "num_kv_heads": 2,
    "vocab_size": VOCABULARY,
    "max_seq_len": 256,
    "tie_embeddings": True,
    "qk_norm": "head",
}
_EXPERT_WIDTH, _TOP_K = 256, 2
MODELS: dict[str, dict[str, Any]] = {
    # As wide as the experts that process one token: equal active parameters.
    "dense": _SHARED | {"ffn_hidden_size": _TOP_K * _EXPERT_WIDTH},
    "sparse": _SHARED
    | {
        "moe": {
            "num_experts": 8,
            "top_k": _TOP_K,
            "expert_ffn_hidden_size": _EXPERT_WIDTH,
            # Router weights sum to one: unscaled, experts would average where dense halves add up.
            "scaling_factor": _TOP_K,
            "aux_loss_coefficient": 0.01,
            "z_loss_coefficient": 0.001,
        }
    },
}
_TRAIN: dict[str, Any] = {
    "seq_len": 256,
    "global_batch_size": 8,
    "micro_batch_size": 8,
    "learning_rate": 3e-3,
    "min_learning_rate": 3e-4,
    "eval_sequences": 64,
}


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo."""

    finding: str
    report: ReportPaths
    runs: tuple[Path, ...]


def demo_experiments(store: Path, steps: int) -> dict[str, Experiment]:
    """Return the two experiments, which differ in their feed-forward layers only."""
    schedule = {"steps": steps, "warmup_steps": steps // 10, "eval_interval": max(1, steps // 10)}
    return {
        name: make_experiment(
            {
                "name": f"demo-{name}",
                "model": model,
                "data": {"store": str(store)},
                "train": _TRAIN | schedule,
            }
        )
        for name, model in MODELS.items()
    }


def run_demo(
    text: Sequence[Path], out: Path, *, steps: int, print_line: Callable[[str], None] = print
) -> DemoResult:
    """Build a store from `text` (default: Python's library), train both models, write a report.

    Whatever an earlier demo with the same settings completed in `out` is reused, so a stopped demo
    resumes. `print_line` receives its progress.

    Raises:
        DataError: The text is missing or too little.
        StoppedError: A signal stopped it; run again, the demo resumes.
    """
    sources = list(text) or standard_library()
    out.mkdir(parents=True, exist_ok=True)
    store = out / "store"
    _build_store(sources, store, print_line)
    experiments = demo_experiments(store.resolve(), steps)
    run_dirs = {}
    for name, experiment in experiments.items():
        write_text(out / f"{name}.toml", experiment.to_toml())
        run_dirs[name] = out / "runs" / f"{experiment.name}-{experiment.content_hash}"
    begun = set[str]()
    for name, until_step in turns(list(experiments), steps):
        if _steps_done(run_dirs[name]) >= until_step:  # by an earlier demo
            continue
        print_line(f"train the {name} model to step {until_step} of {steps}: {run_dirs[name]}")
        train_rank(
            experiments[name],
            run_dirs[name],
            resume=True,
            until_step=until_step,
            progress=TrainingProgress(name),
            memory_is_checked=name in begun,
        )
        begun.add(name)
    runs = list(run_dirs.values())
    report = write_report(runs, out / "report")
    return DemoResult(finding(read_runs(runs)), report, tuple(runs))


def turns(names: Sequence[str], steps: int) -> list[tuple[str, int]]:
    """Return which run trains until which step, in order: the runs take turns.

    The order is reversed from turn to turn, and who is last begins the next: a load that grows or
    falls meets all alike, and fewer turns have to begin.
    """
    count = max(1, min(TURNS, steps // MIN_STEPS_A_TURN))
    order: list[tuple[str, int]] = []
    for turn in range(1, count + 1):
        until_step = steps * turn // count
        for name in names if turn % 2 else reversed(names):
            if order and order[-1][0] == name:
                order.pop()
            order.append((name, until_step))
    return order


def _steps_done(run_dir: Path) -> int:
    """Return the step up to which a run was trained and ended in order."""
    record = read_record_if_any(run_dir)
    return int(record.get("steps") or 0) if record.get("status") in ("stopped", "finished") else 0


def _build_store(sources: Sequence[Path], store: Path, print_line: Callable[[str], None]) -> None:
    from data.build.build import build_store
    from data.progress import show_progress
    from data.store.reader import Store

    sources_file = store.with_name("store.sources")
    names = "".join(f"{path.resolve()}\n" for path in sources)
    if store.exists():
        recorded = sources_file.read_text() if sources_file.is_file() else ""
        if recorded != names:
            raise ConfigError(
                f"{store} was made from other text: choose another directory with -o, or remove"
                " that one"
            )
        print_line(f"keep the token store made before: {store}")
    else:
        write_text(sources_file, names)  # first, so that a demo killed from here on can resume
        print_line(f"tokenize {len(sources)} files and folders under {os.path.commonpath(sources)}")
        with show_progress() as report:
            build_store(
                sources,
                store,
                tokenizer=f"bpe:{VOCABULARY}",
                held_out_fraction=0.03,
                progress=report,
            )
    manifest = Store.open(store).manifest
    print_line(f"{manifest.tokens:,} tokens in {manifest.documents:,} documents")
