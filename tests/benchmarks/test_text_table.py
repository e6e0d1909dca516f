"""Tables for a terminal: nothing is cut, at any width."""

import io

import pytest
from rich.console import Console

from benchmarks.text_table import TextTable

LAYOUT = "tp 1 pp 4 ep 8 dp 16 vpp 2"


def printed(table: TextTable, width: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue().splitlines()


def runs() -> TextTable:
    table = TextTable("Runs", ["run", "layout", "tokens", "FLOPs", "time", "loss"])
    for number in range(3):
        row = (f"iso-{number:04}", LAYOUT, "42,110", "2.4e20", "12.5 min", "3.1234")
        table.add_row(*row)
    return table


def test_a_table_that_fits_is_one_line_a_row() -> None:
    lines = printed(runs(), 100)
    assert len(lines) == 1 + 1 + 3
    assert all(LAYOUT in line for line in lines[2:])


@pytest.mark.parametrize("width", [30, 40, 60, 80])
def test_numbers_and_words_stay_whole_at_any_width(width: int) -> None:
    lines = printed(runs(), width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for word in ("iso-0002", "42,110", "2.4e20", "12.5 min", "3.1234", *LAYOUT.split()):
        assert word in text, word


def test_columns_that_do_not_fit_go_on_below_beside_the_first() -> None:
    lines = printed(runs(), 40)
    assert [line.split()[0] for line in lines if line.startswith("iso-")] == [
        f"iso-000{number}" for _ in range(len(lines)) for number in range(3)
    ][: sum(line.startswith("iso-") for line in lines)]
    assert sum(line.startswith("run") for line in lines) > 1


def test_a_word_longer_than_the_terminal_is_broken_and_not_lost() -> None:
    table = TextTable("", ["file", "size"])
    table.add_row("a" * 50, "3")
    assert sum(line.count("a") for line in printed(table, 20)) == 50


def test_an_empty_table_has_its_headings() -> None:
    assert printed(TextTable("Runs", ["run", "loss"]), 80)[1].split() == ["run", "loss"]
