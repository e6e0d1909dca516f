"""`moe bench build`: JSON lines to tokens, beside Hugging Face datasets and Megatron's tool."""

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

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.session import bench_session, print_status
from benchmarks.bench_data.build_peers import TOOLS
from benchmarks.errors import BenchmarkError
from data.build.worker_pool import available_cores
from data.sources.discovery import walk_files
from data.tokenization.tokenizer import train_bpe
from parallel.measurement.intervals import MedianInterval, median_interval

OURS = "moescale"
TOKENIZER_CHARACTERS = 16_000_000


@dataclass(frozen=True)
class BuildPlan:
    """What is tokenized, and by how many workers."""

    num_bytes: int
    """UTF-8 bytes of text."""
    vocab_size: int
    workers: int


def run(text: Sequence[Path], plan: BuildPlan, options: BenchOptions) -> list[dict[str, Any]]:
    """Time every tool on the same lines.

    Raises:
        BenchmarkError: The folders hold too little text, or a tool fails.
    """
    with bench_session(options) as session, tempfile.TemporaryDirectory(prefix="moescale-") as name:
        folder = Path(name)
        key = {
            "text": [str(path) for path in text] or "the environment's own packages",
            "megabytes": plan.num_bytes / 1e6,
            "vocab_size": plan.vocab_size,
            "workers": plan.workers,
            "repeats": options.repeats,
        }
        case = Case(key, partial(measure, list(text), plan, options.repeats, folder))
        return session.run("build", [case])


def default_plan(megabytes: float, vocab_size: int, workers: int | None) -> BuildPlan:
    """Return a plan; without `workers`, there is one for every core."""
    return BuildPlan(round(megabytes * 1e6), vocab_size, workers or available_cores())


def measure(text: Sequence[Path], plan: BuildPlan, repeats: int, folder: Path) -> dict[str, Any]:
    """Return tokens a second of each tool; tools take turns, so that drift is shared."""
    source, tokenizer = _prepare(text or [Path(sysconfig.get_path("purelib"))], plan, folder)
    installed = [name for name, (_, module) in TOOLS.items() if find_spec(module.split(".")[0])]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in installed}
    for number in range(repeats):
        for name in installed:
            print_status(f"build: repeat {number + 1}/{repeats}, {name}")
            runs[name].append(_timed(name, source, tokenizer, plan.workers))
    counts = {name: tool_runs[0]["tokens"] for name, tool_runs in runs.items()}
    if len(set(counts.values())) > 1:
        raise BenchmarkError(f"the tools made different tokens of the same text: {counts}")
    return {
        "tools": [_tool_row(name, tool_runs) for name, tool_runs in runs.items()],
        "over_best_peer": {
            "by_wall_time": _over_best_peer(runs, "seconds"),
            "by_processor_time": _over_best_peer(runs, "cpu_seconds"),
        },
        "absent": [name for name in TOOLS if name not in installed],
    }


def _tool_row(name: str, runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {
        "tool": name,
        "tokens": runs[0]["tokens"],
        "tokens_per_s": _rate(runs, "seconds").to_json(),
        "tokens_per_cpu_s": _rate(runs, "cpu_seconds").to_json(),
    }


def _over_best_peer(
    runs: Mapping[str, Sequence[Mapping[str, float]]], time_key: str
) -> float | None:
    """Return our rate over the best peer's; `None` without peers."""
    rates = {name: _rate(tool_runs, time_key).median for name, tool_runs in runs.items()}
    ours = rates.pop(OURS)
    return ours / max(rates.values()) if rates else None


def _rate(runs: Sequence[Mapping[str, float]], time_key: str) -> MedianInterval:
    """Return tokens a second, by wall time (`seconds`) or processor time (`cpu_seconds`)."""
    return median_interval([run["tokens"] / run[time_key] for run in runs])


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
    """Write the distinct documents as JSON lines, and a tokenizer trained on the first of them."""
    source, tokenizer = folder / "text.jsonl", folder / "tokenizer.json"
    size, sample, characters = 0, [], 0
    with source.open("w", encoding="utf-8") as lines:
        for document in _documents(text):
            lines.write(json.dumps({"text": document}) + "\n")
            size += len(document.encode())
            if characters < TOKENIZER_CHARACTERS:
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
