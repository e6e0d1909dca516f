"""A table that a terminal prints and a report takes as plain cells."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

LONGEST_WORD = 32
"""Longer words, of paths, are broken."""
SHORT_CELL = 12
"""Cells of so few letters, as numbers with their unit, stay in one line."""
GAP = 2
"""Spaces that each column takes beside its text."""


class TextTable(Table):
    """A rich table in the house's style that remembers its cells as text.

    Where it is wider than the terminal, cells wrap between words; where that is not enough, the
    table goes on below itself with its first column again. No number is cut in two.
    """

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        super().__init__(title=title, title_justify="left", box=None, pad_edge=False)
        self.headings = list(columns)
        self.cells: list[list[str]] = []
        for number, name in enumerate(columns):
            self.add_column(name, justify="left" if number == 0 else "right", overflow="fold")

    def add_row(self, *cells: Any) -> None:  # type: ignore[override]  # rows have no style of their own
        """Add a row of texts; brackets in them are no markup."""
        texts = [str(cell) for cell in cells]
        self.cells.append(texts)
        super().add_row(*map(Text, texts))

    def as_json(self) -> dict[str, Any]:
        """Return title, columns and rows, every row as long as the headings."""
        width = len(self.headings)
        rows = [[*row, *([""] * (width - len(row)))] for row in self.cells]
        return {"title": str(self.title or ""), "columns": self.headings, "rows": rows}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table in one part, or in several below each other."""
        rows = self.as_json()["rows"]
        columns = [[name, *(row[i] for row in rows)] for i, name in enumerate(self.headings)]
        least = [max(map(_unbroken, texts)) for texts in columns]
        most = [max(map(_widest_line, texts)) for texts in columns]
        blocks = _blocks(least, options.max_width)
        for number, block in enumerate(blocks):
            part = Table(title=self.title if number == 0 else None, title_justify="left",
                         caption=self.caption if number == len(blocks) - 1 else None,
                         box=None, pad_edge=False)  # fmt: skip
            room = options.max_width - GAP * len(block)
            widths = _widths([least[i] for i in block], [most[i] for i in block], room)
            for index, width in zip(block, widths, strict=True):
                part.add_column(self.headings[index], justify=self.columns[index].justify,
                                overflow="fold", width=width)  # fmt: skip
            for row in rows:
                part.add_row(*(Text(row[index]) for index in block))
            if number > 0:
                yield Text()
            yield from part.__rich_console__(console, options)


def _unbroken(text: str) -> int:
    """Return the width below which a text would be broken inside a word."""
    whole = cell_len(text)
    words = max(map(cell_len, text.split()), default=0)
    return whole if whole <= SHORT_CELL else min(words, LONGEST_WORD)


def _widest_line(text: str) -> int:
    return max(map(cell_len, text.splitlines()), default=0)


def _blocks(least: Sequence[int], room: int) -> list[list[int]]:
    """Return the columns of each part: the first one, and as many others as fit beside it."""
    blocks: list[list[int]] = [[0]]
    for index in range(1, len(least)):
        if _total(least, [*blocks[-1], index]) > room and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(index)
    return blocks


def _total(widths: Sequence[int], block: Iterable[int]) -> int:
    return sum(widths[index] + GAP for index in block)


def _widths(least: Sequence[int], most: Sequence[int], room: int) -> list[int | None]:
    """Return widths that fit, the widest columns wrapped first; none where words do not fit."""
    widths = [max(pair) for pair in zip(least, most, strict=True)]
    while sum(widths) > room:
        wide = [index for index, width in enumerate(widths) if width > least[index]]
        if not wide:
            return [None] * len(widths)
        widths[max(wide, key=lambda index: widths[index])] -= 1
    return list(widths)
