"""Published training steps from a CSV (columns of `benchmarks/published/training_steps.csv`).

An empty cell is unknown. Columns that are not named here are passed on and decide nothing.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from parallel.errors import ParallelError

NEEDED = (
    "model", "gpu", "gpus", "tp", "pp", "vpp", "cp", "ep", "etp", "dp", "seq_len", "gbs", "mbs",
    "precision", "tokens_per_s_per_gpu", "step_s", "tflops_per_gpu", "mfu_pct",
    "peak_tflops_for_mfu", "flop_convention",
)  # fmt: skip
"""Columns without which a row cannot be predicted or scored."""
OPTIONAL = (
    "num_layers", "first_dense_layers", "mtp_layers", "peak_memory_gib", "memory_kind", "routing",
    "dispatcher", "ep_overlap", "tp_overlap", "recompute", "cuda_graphs", "sharding", "task",
    "doubtful", "layout_id", "flags_known", "kind", "fabric", "framework",
)  # fmt: skip
"""Columns that are used where they are there."""
MAY_BE_ZERO = ("mtp_layers", "first_dense_layers")


@dataclass(frozen=True)
class PublishedRow:
    """One row: its cells, and typed access to them."""

    line: int
    """Line in the file, for messages."""
    cells: dict[str, str]

    def text(self, column: str) -> str | None:
        """Return a cell, or None where it is unknown."""
        return self.cells.get(column, "").strip() or None

    def whole(self, column: str) -> int | None:
        """Return a cell as a whole number: above 0, or 0 where that means none.

        Raises:
            ParallelError: It is something else.
        """
        value = self.number(column, least=0.0 if column in MAY_BE_ZERO else 1.0)
        if value is not None and value != int(value):
            raise self._fault(column, "a whole number")
        return None if value is None else int(value)

    def number(self, column: str, *, least: float = 0.0) -> float | None:
        """Return a cell as a finite number of at least `least`, and above 0 unless that is 0.

        Raises:
            ParallelError: It is something else.
        """
        text = self.text(column)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            raise self._fault(column, "a number") from None
        if not math.isfinite(value) or value < least:
            raise self._fault(column, f"a number of at least {least:g}")
        return value

    def _fault(self, column: str, meaning: str) -> ParallelError:
        return ParallelError(
            f"line {self.line}, {column} = {self.cells[column][:40]!r}: not {meaning}: mend or"
            " empty the cell"
        )


def read_rows(path: Path) -> list[PublishedRow]:
    """Read a CSV of published steps.

    Raises:
        ParallelError: No such file, not CSV in UTF-8, a column missing or twice, a ragged row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            heading = [name.strip() for name in next(reader, [])]
            _check_heading(path, heading)
            return [
                PublishedRow(reader.line_num, _cells(path, reader.line_num, heading, row))
                for row in reader
                if row
            ]
    except OSError as error:
        raise ParallelError(f"{path}: {error.strerror}: name a CSV of published steps") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ParallelError(f"{path}: not CSV in UTF-8 ({error}): save it so") from None


def _check_heading(path: Path, heading: list[str]) -> None:
    if missing := [name for name in NEEDED if name not in heading]:
        raise ParallelError(
            f"{path}: no column {', '.join(missing)}: add it (its cells may be empty)"
        )
    if twice := [name for name in heading if heading.count(name) > 1]:
        raise ParallelError(f"{path}: two columns {twice[0]!r}: leave one")


def _cells(path: Path, line: int, heading: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(heading):
        raise ParallelError(
            f"{path}, line {line}: {len(row)} cells under {len(heading)} columns: one each"
        )
    return dict(zip(heading, row, strict=True))
