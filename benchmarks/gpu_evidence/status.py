"""What README and evidence say of GPUs, written from what lies in `benchmarks/results/`.

`python -m benchmarks.gpu_evidence.status` rewrites their rows; a test holds them to it.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.results import read_results
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_evidence.gather import BENCH, RESULTS
from data.storage.atomic import write_text
from moe.runs.source_state import CHECKOUT

PAGES = ("README.md", "docs/evidence/index.md")
NOT_YET = "not measured yet"

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One row of the tables: what is claimed, and which tasks measure it."""

    what: str
    """The row's first cell."""
    tasks: tuple[str, ...]


CLAIMS = (
    Claim(
        what="kernel set `torch` on a GPU: logits, gradients and BF16 losses against a CPU",
        tasks=("tests",),
    ),
    Claim(
        what="training step beside transformers, layer, matrix products, attention, on a GPU",
        tasks=(
            "gemm",
            "attention",
            "layer of Mixtral",
            "layer of DeepSeek-V3",
            "step beside transformers: OLMoE",
            "step beside transformers: Qwen3",
        ),
    ),
    Claim(what="energy per token from a GPU's counter", tasks=("energy of a step",)),
    Claim(
        what="Transformer Engine and native FP8 on a GPU",
        tasks=(
            "gemm in FP8",
            "step in kernel set te",
            "step in FP8, current scaling",
            "step in FP8, blockwise scaling",
        ),
    ),
)


def read_evidence(folder: Path) -> list[Record]:
    """Return how tasks ended on cards, oldest first; nothing of a CPU counts.

    Raises:
        BenchmarkError: A file is damaged; names it.
    """
    found: list[Record] = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, record in enumerate(read_results(path), 1):
            if record.get("bench") != BENCH:
                continue
            try:
                if record["conditions"]["hardware"]["device"] != "cuda":
                    continue
                _place(record), record["case"]["task"], record["result"]["state"]
            except (KeyError, TypeError) as error:
                raise BenchmarkError(
                    f"{path}: line {number} lacks {error}: not a record of `make gpu`"
                ) from None
            found.append(record)
    return sorted(found, key=lambda record: str(record["conditions"]["measured_at"]))


def claim_state(claim: Claim, evidence: Sequence[Record]) -> str:
    """Return what may be said of a claim: measured or failed, on which cards and when."""
    texts = []
    for card in sorted({_place(record)[0] for record in evidence}):
        # The last word on each task counts.
        last = {
            record["case"]["task"]: record
            for record in evidence
            if _place(record)[0] == card and record["case"]["task"] in claim.tasks
        }
        states = {record["result"]["state"] for record in last.values()}
        date = max((_place(record)[1] for record in last.values()), default="")
        if "failed" in states:
            texts.append(f"**failed** on one {card}, {date}")
        elif states == {"passed"} and len(last) == len(claim.tasks):
            texts.append(f"measured on one {card}, {date}")
    return "; ".join(texts) or NOT_YET


def _place(record: Record) -> tuple[str, str]:
    """Return the card's name and the day."""
    conditions = record["conditions"]
    return str(conditions["hardware"]["name"]), str(conditions["measured_at"])[:10]


def updated_page(text: str, evidence: Sequence[Record]) -> str:
    """Return a page whose rows on GPUs say what the evidence says; all others stay.

    Raises:
        BenchmarkError: A claim has no row.
    """
    lines = text.splitlines(keepends=True)
    for claim in CLAIMS:
        rows = list(_rows(lines, claim))
        if not rows:
            raise BenchmarkError(f"no row `| {claim.what} | ...`: add it to the status table")
        for number in rows:
            cells = lines[number].split(" | ")
            end = " |\n" if len(cells) == 2 else ""
            cells[1] = claim_state(claim, evidence).replace("|", "/") + end
            lines[number] = " | ".join(cells)
    return "".join(lines)


def _rows(lines: Sequence[str], claim: Claim) -> Iterator[int]:
    return (n for n, line in enumerate(lines) if line.startswith(f"| {claim.what} | "))


def main() -> None:
    """Rewrite the pages of this checkout."""
    evidence = read_evidence(RESULTS)
    for page in PAGES:
        path = CHECKOUT / page
        write_text(path, updated_page(path.read_text(encoding="utf-8"), evidence))


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as fault:
        print(f"moe: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
