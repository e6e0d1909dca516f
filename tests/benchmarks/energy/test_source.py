"""What sources share: whose counters a machine's are."""

from pathlib import Path

import pytest

from benchmarks.energy.source import boot_id


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_hidden_boot_id_is_the_host_name(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "boot_id"
    if content is not None:
        path.write_bytes(content)
    assert boot_id("node", path) == "node"
    path.write_text("1-2-3\n")
    assert boot_id("node", path) == "1-2-3"
