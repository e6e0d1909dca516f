"""A power cut at every point of a save: a complete checkpoint is found, and the next save works.

A child process writes a checkpoint and kills itself before its n-th change of the file system, for
every n. What had not been forced to disk by then is lost, as it is when the power goes.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe.checkpoint.directory import checkpoint_to_resume, step_of
from moe.checkpoint.index import verify_files
from tests.support.distributed import run_ranks

CHANGES = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "chmod")
"""Calls that change what is on disk, or make it durable."""


def _die_before(number: int, root: Path) -> None:
    """Set the trap in this process."""
    made, durable = [0], {path.stat().st_ino for path in root.rglob("*")}

    def trapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **how: Any) -> Any:
            if made[0] == number:
                _lose_what_is_not(durable, root)
                os.kill(os.getpid(), signal.SIGKILL)
            made[0] += 1
            if name == "fsync":
                durable.add(os.fstat(args[0]).st_ino)
            return call(*args, **how)

        return change

    for name in CHANGES:
        setattr(os, name, trapped(name, getattr(os, name)))


def _lose_what_is_not(durable: set[int], root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_ino not in durable:
            os.truncate(path, 0)


def _save(root: Path, step: int, value: float) -> None:
    """Write a checkpoint of one tensor of equal values, and keep the newest one."""
    import torch

    from moe.checkpoint.format import Snapshot
    from moe.checkpoint.index_format import TensorShard
    from moe.checkpoint.writer import Checkpointer

    shard = TensorShard(
        key="weight",
        global_shape=(4,),
        offset=(0,),
        shape=(4,),
        file="rank-00000.safetensors",
        name="0",
    )
    writer = Checkpointer(root, keep=1)
    writer.save(step, Snapshot({"0": torch.full((4,), value)}, [shard], {}), {"tokens": step})
    writer.wait()


def _found(root: Path) -> float | None:
    """Return the value in the checkpoint that a resumed run would read; it is complete."""
    from safetensors.torch import load_file

    newest = checkpoint_to_resume(root)
    if newest is None:
        return None
    verify_files(newest)
    (value,) = set(load_file(newest / "rank-00000.safetensors")["0"].tolist())
    assert step_of(newest) == int(value)
    return float(value)


def _crash_everywhere(before: list[float], value: float, root: Path) -> list[float | None]:
    """Save after others, crash before each change; returns what is found each time.

    A value's integer shard is its step.
    """
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    (root / "before").mkdir()
    for earlier in before:
        _save(root / "before", int(earlier), earlier)
    found: list[float | None] = []
    status: int = signal.SIGKILL
    while status:
        crashed = root / "crashed"
        shutil.copytree(root / "before", crashed)
        status = _save_in_child(crashed, value, len(found))
        found.append(_found(crashed))
        assert status in {0, signal.SIGKILL}
        _save(crashed, 9, 9.0)
        assert _found(crashed) == 9
        assert {path.name for path in crashed.iterdir()} == {"step-00000009", "latest"}
        assert (crashed / "latest").read_text() == "step-00000009"
        shutil.rmtree(crashed)
    return found


def _save_in_child(root: Path, value: float, number: int) -> int:
    """Save in a process of its own that dies before change `number`; returns its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _die_before(number, root)
            _save(root, int(value), value)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize(
    ("before", "value"),
    [([], 1.0), ([1.0], 2.0), ([1.0, 2.0], 2.5)],
    ids=["first", "next", "same_step_again"],
)
def test_a_crash_at_any_point_leaves_a_complete_checkpoint(
    before: list[float], value: float, tmp_path: Path
) -> None:
    found = run_ranks(1, _crash_everywhere, before, value, tmp_path)[0]
    old = before[-1] if before else None
    assert found[0] == old and found[-1] == value
    changed = found.index(value)
    # The folder; chmod, fsync of tensors; fsync, rename, fsync of the folder for state and index.
    assert changed >= 10
    assert found == [old] * changed + [value] * (len(found) - changed)
    assert changed < len(found) - 2, "the crash points go on after the new name is durable"
