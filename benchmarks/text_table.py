"""A table that a terminal prints and a report takes as plain cells."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text


class TextTable(Table):
    """A rich table in the house's style that remembers its cells as text."""

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        super().__init__(title=title, title_justify="left", box=None, pad_edge=False)
        self.headings = list(columns)
        self.cells: list[list[str]] = []
        for number, name in enumerate(columns):
            self.add_column(name, justify="left" if number == 0 else "right", overflow="fold")

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of texts; brackets in them are no markup."""
        texts = [str(cell) for cell in cells]
        self.cells.append(texts)
        super().add_row(*map(Text, texts), **options)

    def as_json(self) -> dict[str, Any]:
        """Return title, columns and rows, every row as long as the headings."""
        width = len(self.headings)
        rows = [[*row, *([""] * (width - len(row)))] for row in self.cells]
        return {"title": str(self.title or ""), "columns": self.headings, "rows": rows}
