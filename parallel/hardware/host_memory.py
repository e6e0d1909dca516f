"""Memory of this machine that programs can have, and what this process has taken of it (Linux)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
CLEAR_REFS = Path("/proc/self/clear_refs")
_FILES = {
    "v2": ("memory.max", "memory.current", "inactive_file"),
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Of each version of control groups: limit, usage, and the key of `memory.stat` that counts what
the kernel can drop at once (cgroup-v2.rst and cgroup-v1/memory.rst of the kernel)."""


@dataclass(frozen=True, kw_only=True)
class MemoryRoom:
    """Memory of one device, or of a machine."""

    total_bytes: int
    free_bytes: int


def host_memory(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> MemoryRoom:
    """Return what this machine has and what is free of it, as far as its control groups let us.

    Swap counts in the total, which nothing can exceed, and not in what is free.
    """
    memory = psutil.virtual_memory()
    swap_bytes = psutil.swap_memory().total
    rooms = [MemoryRoom(total_bytes=memory.total + swap_bytes, free_bytes=memory.available)]
    for limit, used in _limits(cgroups, own):
        rooms.append(MemoryRoom(total_bytes=limit + swap_bytes, free_bytes=max(0, limit - used)))
    return MemoryRoom(
        total_bytes=min(room.total_bytes for room in rooms),
        free_bytes=min(room.free_bytes for room in rooms),
    )


def _limits(cgroups: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and bytes in use of each control group that this process is in."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version = "v1" if controllers else "v2"
        if version == "v1" and "memory" not in controllers.split(","):
            continue
        root = cgroups / "memory" if version == "v1" else cgroups
        group = root / path.lstrip("/")
        # In a container the path may be one that only the host sees; its root is then ours.
        for folder in (group, *group.parents):
            if (found := _limit(folder, *_FILES[version])) is not None:
                yield found
            if folder == root:
                break


def _limit(folder: Path, limit: str, used: str, droppable: str) -> tuple[int, int] | None:
    """Return a group's limit and the bytes in use that cannot be dropped; None without a limit."""
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return None
        in_use = int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(most), in_use - int(stat.get(droppable, 0))
    except (OSError, ValueError):  # no such group, or a kernel that says it otherwise
        return None


def process_bytes(key: str) -> int:
    """Return memory of this process from `/proc/self/status`, such as `VmRSS` or its peak `VmHWM`.

    The peak that `getrusage` reports is no measure: it begins with the size of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def forget_process_peak() -> None:
    """Begin `VmHWM` anew, from the present size (`clear_refs` in the kernel's proc.rst).

    Raises:
        OSError: The kernel does not let us.
    """
    CLEAR_REFS.write_text("5")
