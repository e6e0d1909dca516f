"""`moe bench build`: JSON lines to tokens, beside Hugging Face datasets and Megatron's way."""

import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.bench.cases import Case
from benchmarks.bench.session import bench_session, print_status
from benchmarks.bench_data.build_peers import TOOLS
from benchmarks.errors import BenchmarkError
from data.build.worker_pool import available_cores
from data.sources.discovery import walk_files
from data.tokenization.tokenizer import train_bpe
from parallel.measurement.intervals import median_interval

OURS = "moescale"
TRAINED_CHARACTERS = 16_000_000


@dataclass(frozen=True)
class BuildPlan:
    """What is tokenised, how often."""

    num_bytes: int
    """UTF-8 bytes of text."""
    vocab_size: int
    workers: int
    repeats: int


def run(text: Sequence[Path], plan: BuildPlan, out: Path | None) -> list[dict[str, Any]]:
    """Time every tool on the same lines.

    Raises:
        BenchmarkError: The folders hold too little text, or a tool fails.
    """
    with bench_session([]) as session, tempfile.TemporaryDirectory(prefix="moescale-") as name:
        folder = Path(name)
        key = {
            "text": [str(path) for path in text] or "the environment's own packages",
            "megabytes": plan.num_bytes / 1e6,
            "vocab_size": plan.vocab_size,
            "workers": plan.workers,
            "repeats": plan.repeats,
        }
        measured = partial(measure, list(text), plan, folder)
        return session.run("build", [Case(key, measured)], out)


def default_plan(megabytes: float, vocab_size: int, workers: int | None, repeats: int) -> BuildPlan:
    """Return a plan with a worker for every core unless said otherwise."""
    return BuildPlan(round(megabytes * 1e6), vocab_size, workers or available_cores(), repeats)


def measure(text: Sequence[Path], plan: BuildPlan, folder: Path) -> dict[str, Any]:
    """Return tokens a second of each tool; tools take turns, so that a busy minute hits all."""
    source, tokenizer = _prepare(text or [Path(sysconfig.get_path("purelib"))], plan, folder)
    present = [name for name, (_, module) in TOOLS.items() if find_spec(module.split(".")[0])]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in present}
    for number in range(plan.repeats):
        for name in present:
            print_status(f"build: repeat {number + 1}/{plan.repeats}, {name}")
            runs[name].append(_timed(name, source, tokenizer, plan.workers))
    if len({found[0]["tokens"] for found in runs.values()}) > 1:
        counts = {name: found[0]["tokens"] for name, found in runs.items()}
        raise BenchmarkError(f"the tools made different tokens of the same text: {counts}")
    best = {
        by: max(_median(runs[name], by) for name in present if name != OURS)
        for by in ("seconds", "cpu_seconds")
        if len(present) > 1
    }
    return {
        "tools": [
            {
                "tool": name,
                "tokens": found[0]["tokens"],
                "tokens_per_s": median_interval(
                    [r["tokens"] / r["seconds"] for r in found]
                ).to_json(),
                "tokens_per_cpu_s": median_interval(
                    [r["tokens"] / r["cpu_seconds"] for r in found]
                ).to_json(),
            }
            for name, found in runs.items()
        ],
        "over_best_peer": {
            "by_wall_time": _median(runs[OURS], "seconds") / best["seconds"] if best else None,
            "by_processor_time": (
                _median(runs[OURS], "cpu_seconds") / best["cpu_seconds"] if best else None
            ),
        },
        "absent": [name for name in TOOLS if name not in present],
    }


def _median(found: Sequence[Mapping[str, float]], by: str) -> float:
    """Return the median of tokens a second, by the time named."""
    return median_interval([run["tokens"] / run[by] for run in found]).median


def _timed(name: str, source: Path, tokenizer: Path, workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.bench_data.build_peers", name]
        command += [str(source), str(tokenizer), out, str(workers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _prepare(text: Sequence[Path], plan: BuildPlan, folder: Path) -> tuple[Path, Path]:
    """Write the documents as JSON lines, each once, and a tokeniser trained on the first."""
    source, tokenizer = folder / "text.jsonl", folder / "tokenizer.json"
    size, sample, characters = 0, [], 0
    with source.open("w", encoding="utf-8") as lines:
        for document in _documents(text):
            lines.write(json.dumps({"text": document}) + "\n")
            size += len(document.encode())
            if characters < TRAINED_CHARACTERS:
                sample.append(document)
                characters += len(document)
            if size >= plan.num_bytes:
                break
    if size < plan.num_bytes:
        raise BenchmarkError(
            f"{', '.join(map(str, text))}: {size / 1e6:.1f} MB of text: name more, or ask for fewer"
            " --megabytes"
        )
    tokenizer.write_text(train_bpe(sample, plan.vocab_size).text)
    return source, tokenizer


def _documents(text: Sequence[Path]) -> Iterator[str]:
    seen = set()
    for path in (path for root in text for path in walk_files(root)):
        try:
            document = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if document.strip() and len(document) < 1_000_000 and document not in seen:
            seen.add(document)
            yield document
