"""What docs/evidence/study.md says of the study, written from its newest result.

`python -m benchmarks.study.evidence` rewrites what stands between the marks; a test holds it to it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.kinds import kind_name
from data.storage.atomic import write_text
from moe.runs.source_state import CHECKOUT, RESULTS
from parallel.measurement.number_text import plain_number

PAGE = CHECKOUT / "docs/evidence/study.md"
BEGIN, END = "<!-- from the result: begin -->\n", "<!-- from the result: end -->\n"
Document = Mapping[str, Any]


def newest_result(folder: Path = CHECKOUT / RESULTS) -> Path:
    """Return the last result by date."""
    return max(folder.glob("study-*.json"))


def updated_page(text: str, result: Path) -> str:
    """Return the page with the result's words and tables between its marks."""
    document = json.loads(result.read_text(encoding="utf-8"))
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}{_section(document, result.name)}{END}{after}"


def _section(document: Document, name: str) -> str:
    parts = [
        _conditions(document, name),
        "### Finding\n\n" + "".join(f"- {line}\n" for line in document["finding"]),
        "### Losses\n\nMean held-out loss over seeds, nats per token.\n\n" + _losses(document),
        "### Laws\n\n`L = " + document["form"] + "` for each number of experts, from all runs but"
        " the largest; intervals are the bootstrap's.\n\n" + _laws(document),
        "### Laws of all runs together\n\nThe last column was not known when they were fitted.\n\n"
        + _laws_together(document),
        "### Leverage\n\n" + _leverage(document),
    ]  # fmt: skip
    return "\n" + "\n".join(parts) + "\n"


def _conditions(document: Document, name: str) -> str:
    held, runs = document["conditions"], document["runs"]
    packages = held["packages"]
    commit = held["commit"]["commit"] or "unknown"
    rows = [
        ("Result", f"`benchmarks/results/{name}`"),
        ("Date", min(run["started_at"] for run in runs)[:10]),
        ("Machine", f"{held['hardware']['name']}, {held['hardware']['jobs']} runs at a time"),
        ("Software", f"Python {held['python']}, torch {packages['torch']}, megatron-core"
         f" {packages['megatron-core']}; commit `{commit[:7]}`"),
        ("Text", f"{document['corpus']['documents']:,} documents of Python's library,"
         f" {document['corpus']['tokens']['train']:,} training and"
         f" {document['corpus']['tokens']['held_out']:,} held-out tokens"),
        ("Runs", f"{len(runs)}, {plain_number(sum(run['flops'] for run in runs), 2)} FLOPs,"
         f" {sum(run['wall_seconds'] for run in runs) / 60:.0f} minutes of runs"),
    ]  # fmt: skip
    return _table(("", ""), rows)


def _losses(document: Document) -> str:
    groups: dict[tuple[float, int, int], list[Mapping[str, Any]]] = {}
    for run in document["runs"]:
        key = run["asked_held"], int(run["hidden_size"]), int(run["experts"])
        groups.setdefault(key, []).append(run)
    experts = sorted({key[2] for key in groups})
    rows = []
    for flops, width in sorted({key[:2] for key in groups}):
        found = [groups.get((flops, width, n)) for n in experts]
        first = next(group for group in found if group)[0]
        losses = [
            f"{np.mean([run['loss'] for run in group]):.3f}" if group else "" for group in found
        ]
        sizes = f"{width} x {first['num_layers']}", f"{first['active_parameters'] / 1e3:.0f} k"
        rows.append((plain_number(flops, 2), *sizes, f"{first['tokens'] / 1e6:.2f} M", *losses))
    heads = ("FLOPs", "Width x layers", "Active", "Tokens")
    return _table((*heads, *map(kind_name, experts)), rows)


def _laws(document: Document) -> str:
    rows = []
    for law in document["laws"]:
        cells = [_with_interval(v, law["intervals"][n]) for n, v in law["coefficients"].items()]
        rows.append((kind_name(law["experts"]), str(law["points"]), *cells,
                     f"{law['residuals']['rms_log']:.1%}"))  # fmt: skip
    return _table(("", "Runs", *document["laws"][0]["coefficients"], "rms"), rows)


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    """Return a coefficient and its interval, where the points see it at all."""
    ends = "" if interval is None else " to ".join(plain_number(end, 3) for end in interval)
    return f"{plain_number(value, 3)} ({ends})" if ends else plain_number(value, 3)


def _laws_together(document: Document) -> str:
    rows = [
        (f"`{law['law']}`", str(law["coefficients"]), f"{law['rms_log']:.1%}", f"{law['aicc']:.0f}",
         f"{law['held_out_rms_log']:.1%}")
        for law in document["laws_together"]
    ]  # fmt: skip
    return _table(("Law", "Coefficients", "rms", "AICc", "rms at the largest"), rows)


def _leverage(document: Document) -> str:
    words = {"laws": "both laws", "minimum": "least measured loss, dense law"}
    rows = [
        (plain_number(one['flops'], 2), str(one["experts"]), _ratio(one["value"]),
         " to ".join(_ratio(end) for end in one["interval"]) if one["interval"] else "not known",
         words[one["source"]])
        for one in document["leverage"]
    ]  # fmt: skip
    return _table(("FLOPs", "Experts", "FLOPs dense / sparse", "95%", "By"), rows)


def _ratio(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    write_text(PAGE, updated_page(PAGE.read_text(encoding="utf-8"), newest_result()))
