"""Lines of a CSV that another tool wrote, read strictly: what is not certain is refused."""

import csv
import re

# `float` takes more: 1_000, inf, nan, digits of other scripts.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def split_line(line: bytes) -> list[str]:
    """Return a line's cells; none for an empty line.

    Raises:
        ValueError: It is not UTF-8, or not a row of CSV of its own.
    """
    try:
        return next(csv.reader([line.decode("utf-8")], strict=True), [])
    except UnicodeDecodeError:
        raise ValueError("not UTF-8: save it as CSV in UTF-8") from None
    except csv.Error as error:  # among them: a cell over several lines
        raise ValueError(f"not CSV ({error})") from None


def column_names(heading: bytes) -> list[str]:
    """Return the columns that a first line names; case and spaces around them do not count.

    Raises:
        ValueError: As `split_line`, or it names a column twice.
    """
    names = [name.strip().lower() for name in split_line(heading.removeprefix(b"\xef\xbb\xbf"))]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two columns {name[:40]!r}: leave one")
    return names


def cells_by_column(columns: list[str], line: bytes) -> dict[str, str]:
    """Return a line's cells by column; empty for an empty line.

    Raises:
        ValueError: As `split_line`, or it has not one cell for each column.
    """
    cells = split_line(line)
    if cells and len(cells) != len(columns):
        raise ValueError(
            f"{len(cells)} cells under {len(columns)} columns: numbers take a decimal point and no"
            " separator of thousands"
        )
    return dict(zip(columns, cells, strict=False))


def number(text: str) -> float | None:
    """Return a decimal number such as `1250.5` or `1e3`; `None` for any other text."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None
