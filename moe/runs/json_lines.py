"""JSON lines, one object a line: files that grow row by row, and whose writer may be killed.

A row is complete once its line has ended. A last line without an end was cut off while it was
written and is left out; a damaged line before it is an error.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data.storage.atomic import atomic_file
from data.storage.regular_file import append_regular, open_regular, read_regular
from moe.config.experiment import validated
from moe.errors import ConfigError

Row = dict[str, Any]
MAX_BYTES = 4 << 30
_TAIL_BYTES = 8192
"""Read first from the end of a file whose last rows are asked for; more where they are longer."""


def finite(value: float) -> float | None:
    """Return a number, or None where it is infinite or not a number: JSON has neither."""
    return value if math.isfinite(value) else None


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row, complete or not at all; creates the file where it is missing.

    Numbers that are infinite or not a number become null.

    Raises:
        OSError: The storage refuses, or the file is no regular one or a symbolic link.
    """
    line = memoryview((json.dumps(_all_finite(row), allow_nan=False) + "\n").encode())
    with append_regular(path) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[file.raw.write(line) :]
        except OSError:
            file.truncate(end)
            raise


def _all_finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _all_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_all_finite(item) for item in value]
    return finite(value) if isinstance(value, float) else value


def read_rows(
    path: Path,
    keys: Sequence[str] = (),
    kind: type[BaseModel] | None = None,
    *,
    follow_link: bool = True,
    as_written: bool = False,
) -> list[Row]:
    """Return the complete rows of a file; none where there is no file.

    Rows are checked as `kind`, where that is given; `follow_link` as in `open_regular`. Of a file
    that is no longer written to (`as_written`) a cut last line is damaged too, and NaN stays NaN.

    Raises:
        ConfigError: It cannot be read, or a complete line is damaged, lacks one of `keys` or
            breaks a rule of `kind`; names the line.
    """
    try:
        content = read_regular(path, MAX_BYTES, follow_link=follow_link)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    lines = content.split(b"\n")
    cut_off = lines.pop()
    is_whole = _parse(cut_off) is not None or not (lines or cut_off.startswith(b"{"))
    if cut_off and (as_written or is_whole):
        lines.append(cut_off)  # complete but for its end; or no file of rows at all
    rows = []
    for number, line in enumerate(lines, 1):
        row = _parse(line, as_written=as_written)
        if row is None:
            raise ConfigError(f"{path}: line {number} is damaged, not JSON")
        if any(key not in row for key in keys):
            raise ConfigError(f"{path}: line {number} lacks {', '.join(keys)}")
        if kind is not None:
            validated(kind, row, f"{path}: line {number}", by_hand=False)
        rows.append(row)
    return rows


def last_rows(path: Path, count: int) -> list[Row]:
    """Return up to `count` last complete rows of a file that may be growing; reads only its end.

    Damaged lines are skipped; none where there is no file, or no regular one.
    """
    try:
        with open_regular(path, follow_link=False) as file:
            size = file.seek(0, os.SEEK_END)
            begin, window = size, _TAIL_BYTES
            lines: list[bytes] = []
            # Beside the rows: the end of an earlier line, and the last one, cut off or empty.
            while begin > 0 and len(lines) < count + 2:
                begin = max(0, size - window)
                file.seek(begin)
                lines = file.read(size - begin).split(b"\n")
                window *= 2
    except OSError:
        return []
    rows = [row for line in lines[-count - 1 :] if (row := _parse(line)) is not None]
    return rows[-count:]


def filter_rows(path: Path, keep: Callable[[Row], bool]) -> None:
    """Atomically drop the rows that `keep` rejects, and lines that are damaged or cut off."""
    lines = read_regular(path, MAX_BYTES, follow_link=False).split(b"\n")
    retained = [line for line in lines if (row := _parse(line)) is not None and keep(row)]
    with atomic_file(path) as file:
        file.writelines(line + b"\n" for line in retained)


def _parse(line: bytes, *, as_written: bool = False) -> Row | None:
    """Return the object that a line holds; None where it holds none."""
    try:
        # A writer of Python's leaves NaN for a number that could not be measured.
        value = json.loads(line, parse_constant=float if as_written else lambda _: None)
    except (RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None
