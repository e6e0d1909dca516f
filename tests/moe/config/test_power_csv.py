"""A file of power samples is looked at before a run, or a job, starts."""

from pathlib import Path

import pytest

from moe.config.power_csv import check_power_csv
from moe.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory: start its logger first"),
        ("", "no column time, watts: its first line must name"),
        ("when,watts\n1,2\n", "no column time: its first line must name"),
        ("1764412345,300\n", "no column time, watts"),
    ],
)
def test_a_file_that_is_no_log_of_power_is_refused(
    text: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "pdu.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refusal:
        check_power_csv(path)
    assert str(refusal.value).startswith(f"energy.power_csv = {path}: ")


def test_case_order_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "pdu.csv"
    path.write_text("\ufeffWatts, Time ,device\n")
    check_power_csv(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        check_power_csv(tmp_path)
