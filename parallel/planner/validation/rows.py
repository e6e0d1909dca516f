"""Published training steps from a CSV (columns of `benchmarks/published/training_steps.csv`).

An empty cell is unknown, and so are the cells of a column that is not there. Columns that nothing
reads are passed on and decide nothing.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parallel.errors import ParallelError

NEEDED = ("model", "gpu", "gpus", "seq_len", "gbs")
"""Columns without which no row can be predicted."""
SPEEDS = ("tokens_per_s_per_gpu", "step_s", "tflops_per_gpu", "mfu_pct")
"""Columns of which one has to be there, to be compared with."""
WHOLE = (
    "num_layers", "first_dense_layers", "mtp_layers", "gpus", "tp", "pp", "vpp", "cp", "ep", "etp",
    "dp", "seq_len", "gbs", "mbs",
)  # fmt: skip
"""Columns of whole numbers."""
NUMBERS = (*WHOLE, *SPEEDS, "peak_tflops_for_mfu", "peak_memory_gib", "node_joule_per_token")
MAY_BE_ZERO = ("mtp_layers", "first_dense_layers")
"""What a model may have none of; of other columns 0 is no value."""
LEAST_NUMBER: Final = 1e-9
MOST_NUMBER: Final = 1e9
"""Nothing that is published lies outside; within, no quotient overflows."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


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
        value = self.number(column)
        if value is not None and value != int(value):
            raise self._fault(column, "a whole number")
        return None if value is None else int(value)

    def number(self, column: str) -> float | None:
        """Return a cell as a number of a plausible size: above 0, or 0 where that means none.

        Raises:
            ParallelError: It is something else.
        """
        text = self.text(column)
        if text is None:
            return None
        if not _NUMBER.fullmatch(text):
            raise self._fault(column, "a number")
        value, may_be_zero = float(text), column in MAY_BE_ZERO
        least = 1.0 if column in WHOLE else LEAST_NUMBER
        if not least <= value <= MOST_NUMBER and not (may_be_zero and value == 0):
            zero = "0 or " if may_be_zero else ""
            raise self._fault(column, f"{zero}a number from {least:g} to {MOST_NUMBER:g}")
        return value

    def values(self) -> dict[str, str | int | float | None]:
        """Return the cells, those of `NUMBERS` as numbers; None where such a one is unknown."""
        return {
            column: self._value(column) if column in NUMBERS else text
            for column, text in self.cells.items()
        }

    def _value(self, column: str) -> str | int | float | None:
        try:
            value = self.number(column)
        except ParallelError:  # in a row that nothing was asked of
            return self.text(column)
        if value is None or column not in WHOLE or value != int(value):
            return value
        return int(value)

    def _fault(self, column: str, meaning: str) -> ParallelError:
        return ParallelError(
            f"line {self.line}, {column} = {self.cells[column][:40]!r}: not {meaning}: mend or"
            " empty the cell"
        )


def read_rows(path: Path) -> list[PublishedRow]:
    """Read a CSV of published steps.

    Raises:
        ParallelError: No such file, no row, not CSV in UTF-8, a column missing or twice, a ragged
            row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            heading = [name.strip() for name in next(reader, [])]
            _check_heading(path, heading)
            rows = [
                PublishedRow(reader.line_num, _cells(path, reader.line_num, heading, row))
                for row in reader
                if row
            ]
    except OSError as error:
        raise ParallelError(f"{path}: {error.strerror}: name a CSV of published steps") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ParallelError(f"{path}: not CSV in UTF-8 ({error}): save it so") from None
    if not rows:
        raise ParallelError(f"{path}: no rows under the heading: add published steps")
    return rows


def _check_heading(path: Path, heading: list[str]) -> None:
    if missing := [name for name in NEEDED if name not in heading]:
        raise ParallelError(f"{path}: no column {', '.join(missing)}: add it")
    if not set(SPEEDS) & set(heading):
        raise ParallelError(f"{path}: no column of speeds: add one of {', '.join(SPEEDS)}")
    if twice := [name for name in heading if heading.count(name) > 1]:
        raise ParallelError(f"{path}: two columns {twice[0]!r}: leave one")


def _cells(path: Path, line: int, heading: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(heading):
        raise ParallelError(
            f"{path}, line {line}: {len(row)} cells under {len(heading)} columns: one each"
        )
    return dict(zip(heading, row, strict=True))
