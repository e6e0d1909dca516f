"""Memory of this machine, as far as control groups let a process have it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from parallel.hardware import host_memory as module
from parallel.hardware.host_memory import (
    MemoryRoom,
    forget_process_peak,
    host_memory,
    process_bytes,
)

GIB = 2**30
TOTAL, AVAILABLE, SWAP = 64 * GIB, 48 * GIB, 8 * GIB


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of known size: what is free here changes while tests run."""
    memory = SimpleNamespace(total=TOTAL, available=AVAILABLE)
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(module.psutil, "swap_memory", lambda: SimpleNamespace(total=SWAP))


def group(folder: Path, limit: str, used: int, stat: str, *, version: str) -> None:
    """Write the files of one control group."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        "v2": ("memory.max", "memory.current"),
    }[version]
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"{stat}\n")


def own(tmp_path: Path, text: str) -> Path:
    """Write a `/proc/self/cgroup`."""
    file = tmp_path / "cgroup"
    file.write_text(text)
    return file


def test_the_machine_is_the_limit_where_no_group_is(tmp_path: Path) -> None:
    found = host_memory(tmp_path, tmp_path / "missing")
    assert found == MemoryRoom(total_bytes=TOTAL + SWAP, free_bytes=AVAILABLE)


@pytest.mark.parametrize("limited", ["job", "job/step", "."])
def test_the_tightest_group_counts(tmp_path: Path, limited: str) -> None:
    """A limit may be on any group above, and what the kernel can drop is free."""
    for folder in (".", "job", "job/step"):
        group(tmp_path / folder, "max", 0, "inactive_file 0", version="v2")
    used = "anon 5\ninactive_file 1048576"
    group(tmp_path / limited, str(2**29), 2**28, used, version="v2")
    found = host_memory(tmp_path, own(tmp_path, "0::/job/step\n"))
    assert found.total_bytes == 2**29 + SWAP
    assert found.free_bytes == 2**29 - 2**28 + 2**20


def test_version_1_counts_the_memory_controller_alone(tmp_path: Path) -> None:
    group(tmp_path / "memory/job", str(2**29), 2**28, "total_inactive_file 0", version="v1")
    text = "9:name=systemd:/job\n4:cpu,memory:/job\n0::/\n"
    assert host_memory(tmp_path, own(tmp_path, text)).free_bytes == 2**28


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    group(tmp_path, str(2**29), 0, "inactive_file 0", version="v2")
    found = host_memory(tmp_path, own(tmp_path, "0::/docker/not-seen-here\n"))
    assert found.total_bytes == 2**29 + SWAP


@pytest.mark.parametrize("limit", ["max", "", "no number"])
def test_a_limit_that_says_nothing_limits_nothing(tmp_path: Path, limit: str) -> None:
    group(tmp_path, limit, 0, "inactive_file 0", version="v2")
    found = host_memory(tmp_path, own(tmp_path, "0::/\n"))
    assert found == MemoryRoom(total_bytes=TOTAL + SWAP, free_bytes=AVAILABLE)


def test_a_group_that_uses_more_than_its_limit_has_nothing_free(tmp_path: Path) -> None:
    group(tmp_path, str(GIB), 2 * GIB, "inactive_file 0", version="v2")
    assert host_memory(tmp_path, own(tmp_path, "0::/\n")).free_bytes == 0


def test_the_peak_of_this_process_begins_anew_or_an_error_says_that_it_does_not() -> None:
    """Some containers have `/proc` read-only."""
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    before = process_bytes("VmHWM")
    assert before >= len(block)
    del block
    try:
        forget_process_peak()
    except OSError:
        assert process_bytes("VmHWM") >= before
    else:
        assert process_bytes("VmHWM") <= before - 32 * 2**20


def test_the_kernel_is_asked_to_begin_the_peak_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLEAR_REFS", tmp_path / "clear_refs")
    forget_process_peak()
    assert (tmp_path / "clear_refs").read_text() == "5"
    monkeypatch.setattr(module, "CLEAR_REFS", tmp_path / "missing/clear_refs")
    with pytest.raises(OSError, match="clear_refs"):
        forget_process_peak()
