"""What ends a run in its directory: one line with the file, the fault and the remedy."""

import os
from pathlib import Path

import pytest

from moe.errors import remedy_of
from moe.runs.json_lines import filter_rows


def test_what_is_no_file_of_rows_is_to_be_moved_away(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match="not a regular file") as caught:
        filter_rows(tmp_path / "metrics.jsonl", lambda _: True)
    assert remedy_of(caught.value) == "move away what stands there"
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")
    assert remedy_of(OSError(28, "No space left on device")) == "make room or repair it"
