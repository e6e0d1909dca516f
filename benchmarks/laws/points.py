"""Points for a law: results of runs, one a row, from CSV or Parquet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.law import Columns, FloatArray
from benchmarks.laws.quantities import NON_NEGATIVE, QUANTITIES, UPPER_BOUNDS
from moe.config.strict_csv import cells_by_column, column_names, number

CONVENTIONS: Mapping[str, tuple[str, ...]] = {
    "embeddings": ("in", "out"),
    "granularity_definition": ("ffn", "hidden"),
    "loss_unit": ("nats", "bits"),
}
"""Columns of words that say how the file counts; the same in every row."""
STATUS, FINISHED = "status", "finished"
"""Column that says how runs ended, and its word for those that are points."""
MAX_BYTES = 2**30
LEAST, MOST = 1e-60, 1e60
"""Powers of numbers beyond these overflow; no quantity is so small or large."""


@dataclass(frozen=True)
class Points:
    """Columns of numbers, and the conventions that the file states."""

    source: str
    columns: Columns
    """[points] each; NaN where a cell is empty."""
    stated: Mapping[str, str]
    rows: tuple[int, ...]
    """Number of each row in the file, as an editor shows it."""
    left_out: int = 0
    """Rows of runs that did not finish (column `status`)."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Sequence[int]) -> "Points":
        """Return only these points."""
        index = np.asarray(chosen, dtype=np.intp)
        return Points(
            self.source,
            {name: column[index] for name, column in self.columns.items()},
            self.stated,
            tuple(self.rows[i] for i in index),
            self.left_out,
        )


def read_points(path: Path) -> Points:
    """Read a CSV or Parquet file of points; columns that no law knows are left.

    Raises:
        BenchmarkError: It is not such a file; names row and column.
    """
    if not path.is_file():
        raise BenchmarkError(f"{path}: no such file of points: give a CSV or Parquet file")
    if path.stat().st_size > MAX_BYTES:
        raise BenchmarkError(f"{path}: larger than 1 GiB: points are one row a run")
    parquet = path.suffix.lower() in {".parquet", ".pq"}
    cells, rows = _parquet_cells(path) if parquet else _csv_cells(path)
    if not rows:
        raise BenchmarkError(f"{path}: no points: one row a run, under a line of column names")
    count = len(rows)
    cells, rows = _finished(path, cells, rows)
    stated = {name: _stated(path, name, cells[name], rows) for name in CONVENTIONS if name in cells}
    columns = {
        name: _numbers(path, name, column, rows)
        for name, column in cells.items()
        if name in QUANTITIES
    }
    if stated.get("loss_unit") == "bits" and "loss" in columns:
        columns["loss"] = columns["loss"] * np.log(2)
    return Points(str(path), columns, stated, rows, count - len(rows))


def _csv_cells(path: Path) -> tuple[dict[str, list[str]], tuple[int, ...]]:
    lines = path.read_bytes().splitlines()
    row = 1
    try:
        names = column_names(lines[0] if lines else b"")
        cells: dict[str, list[str]] = {name: [] for name in names}
        rows = []
        for row, line in enumerate(lines[1:], start=2):
            values = cells_by_column(names, line)
            if values:
                rows.append(row)
                for name, value in values.items():
                    cells[name].append(value.strip())
    except ValueError as error:
        raise BenchmarkError(f"{path}: line {row}: {error}") from None
    return cells, tuple(rows)


def _parquet_cells(path: Path) -> tuple[dict[str, list[str]], tuple[int, ...]]:
    """Return a Parquet file's columns as text; rows count from 1."""
    import pyarrow
    import pyarrow.parquet

    try:
        wanted = [*QUANTITIES, *CONVENTIONS, STATUS]
        names = pyarrow.parquet.read_schema(path).names
        table = pyarrow.parquet.read_table(path, columns=[n for n in wanted if n in names])
    except (pyarrow.ArrowException, OSError) as error:
        detail = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise BenchmarkError(f"{path}: not a Parquet file ({detail})") from None
    cells = {
        name: ["" if value is None else str(value) for value in table.column(name).to_pylist()]
        for name in table.column_names
    }
    return cells, tuple(range(1, table.num_rows + 1))


def _finished(
    path: Path, cells: dict[str, list[str]], rows: tuple[int, ...]
) -> tuple[dict[str, list[str]], tuple[int, ...]]:
    """Return the rows of finished runs; all where no column says how they ended."""
    if STATUS not in cells:
        return cells, rows
    kept = [index for index, status in enumerate(cells[STATUS]) if status == FINISHED]
    if not kept:
        raise BenchmarkError(f"{path}: column {STATUS!r}: none of {len(rows)} runs is {FINISHED}")
    chosen = {name: [column[index] for index in kept] for name, column in cells.items()}
    return chosen, tuple(rows[index] for index in kept)


def _stated(path: Path, name: str, cells: Sequence[str], rows: Sequence[int]) -> str:
    for row, cell in zip(rows, cells, strict=True):
        if cell.lower() not in CONVENTIONS[name]:
            raise BenchmarkError(
                f"{path}: row {row}, column {name!r}: {cell[:40]!r} is none of"
                f" {', '.join(CONVENTIONS[name])}"
            )
        if cell.lower() != cells[0].lower():
            raise BenchmarkError(
                f"{path}: row {row}, column {name!r}: {cell[:40]!r} after {cells[0][:40]!r}: two"
                " conventions in one file; convert one, or fit them apart"
            )
    return cells[0].lower()


def _numbers(path: Path, name: str, cells: Sequence[str], rows: Sequence[int]) -> FloatArray:
    values = np.full(len(cells), np.nan)
    for index, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        if not cell:
            continue
        value = number(cell)
        if value is None or not np.isfinite(value):
            raise _bad_cell(path, row, name, cell, "not a finite number")
        if value < 0 or (value == 0 and name not in NON_NEGATIVE):
            bound = "at least" if name in NON_NEGATIVE else "greater than"
            raise _bad_cell(path, row, name, cell, f"{QUANTITIES[name]} is {bound} 0")
        if 0 < value < LEAST:
            raise _bad_cell(path, row, name, cell, f"{QUANTITIES[name]} is not so small")
        if value > UPPER_BOUNDS.get(name, MOST) or (value == 1 and name == "sparsity"):
            raise _bad_cell(path, row, name, cell, f"{QUANTITIES[name]} is not so large")
        values[index] = value
    return values


def _bad_cell(path: Path, row: int, name: str, cell: str, reason: str) -> BenchmarkError:
    return BenchmarkError(f"{path}: row {row}, column {name!r}: {cell[:40]!r}: {reason}")
