"""Results of `moe bench -o FILE` in a report: tables, and the parts of a step's time."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import kernel_tables, tables
from benchmarks.bench.natural import tables as natural_tables
from benchmarks.bench.results import read_results
from benchmarks.bench_data.build_tables import build_tables
from benchmarks.bench_data.loader_tables import loader_tables
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_evidence.tables import evidence_tables
from benchmarks.text_table import TextTable

Record = Mapping[str, Any]


TABLES: dict[str, Callable[[Sequence[Record]], Sequence[Any]]] = {
    "step": natural_tables.step_tables,
    "layer": tables.layer_tables,
    "routing": tables.layer_tables,
    "inference": tables.inference_tables,
    "loader": loader_tables,
    "build": build_tables,
    "checkpoint": tables.checkpoint_tables,
    "collectives": tables.collective_tables,
    "gemm": kernel_tables.gemm_tables,
    "attention": kernel_tables.attention_tables,
    "gpu_evidence": evidence_tables,
}
# Keys of a split that are no parts: the sum, and communication, which the parts include.
_NOT_PARTS = ("step", "communication")


def read_bench_files(paths: Sequence[Path]) -> list[Record]:
    """Return the records of result files, in order.

    Raises:
        BenchmarkError: A file is missing, empty or damaged, or of a benchmark without tables.
    """
    records: list[Record] = []
    for path in paths:
        if not path.is_file():
            raise BenchmarkError(f"--bench {path}: no such file: `moe bench ... -o FILE` writes it")
        results = read_results(path)
        unknown = {str(record.get("bench"))[:40] for record in results} - TABLES.keys()
        if not results or unknown:
            what = f"no table for {', '.join(sorted(unknown))}" if unknown else "it holds no result"
            raise BenchmarkError(f"--bench {path}: {what}: there is {', '.join(TABLES)}")
        for number, record in enumerate(results, 1):
            _check_shown(record, f"--bench {path}: line {number}")
        records += results
    return records


def _check_shown(record: Record, origin: str) -> None:
    """Show a result once, for nothing: what cannot be shown is damaged.

    Raises:
        BenchmarkError: It lacks a value, or one is of another kind; names `origin`.
    """
    try:
        json.dumps([bench_content([record]), step_splits([record])], allow_nan=False)
    except Exception as error:  # as each table, and rich, sees fit
        fault = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise BenchmarkError(
            f"{origin}: a damaged result of `moe bench {record['bench']}` ({fault}): measure it"
            " again"
        ) from None


def bench_content(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return each benchmark's tables as text, with the conditions of measurement."""
    content = []
    for name in dict.fromkeys(str(record["bench"]) for record in records):
        mine = [record for record in records if record["bench"] == name]
        tables = [table.as_json() for table in TABLES[name](mine) if isinstance(table, TextTable)]
        conditions = list(dict.fromkeys(_conditions(record) for record in mine))
        content.append({"bench": name, "tables": tables, "conditions": conditions})
    return content


def step_splits(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return, by model, each part's fraction of a training step."""
    splits = {}
    for record in records:
        if record["bench"] == "step":
            split, case = record["result"]["split_s"], record["case"]
            cut = "" if case["layers"] == case["of_layers"] else f" ({case['layers']} layers)"
            parts = {n: s / split["step"] for n, s in split.items() if n not in _NOT_PARTS}
            splits[f"{case['model']}{cut}"] = parts
    return splits


def _conditions(record: Record) -> str:
    held = record.get("conditions") or {}
    hardware, git = held.get("hardware") or {}, held.get("commit") or {}
    packages = held.get("packages") or {}
    versions = [f"{name} {packages[name]}" for name in ("torch", "megatron-core")
                if packages.get(name)]  # fmt: skip
    commit = (git.get("commit") or "not known")[:10] + (" with changes" if git.get("dirty") else "")
    parts = [
        f"{hardware.get('name')}, {hardware.get('ranks')} rank(s)",
        f"load {held.get('load_average', 0):.1f} on {held.get('cores')} cores",
        *versions,
        f"commit {commit}",
        f"measured {held.get('measured_at')}",
    ]
    return "; ".join(parts)
