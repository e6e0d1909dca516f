"""A save that storage refuses holds no room while it waits for the next try."""

import errno
import os
from pathlib import Path
from typing import Any

from tests.support.distributed import run_ranks


def _found_while_waiting(root: Path) -> tuple[list[list[str]], str]:
    """Save where the disk is full; returns what lies there at each pause, and the error."""
    import torch
    import torch.distributed as dist

    from moe.checkpoint import format, writer
    from moe.checkpoint.index_format import TensorShard
    from moe.errors import StorageError

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    found: list[list[str]] = []

    def full(path: Path, _tensors: Any) -> None:
        path.write_bytes(b"what there was room for")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    format.write_tensors = full
    writer.time.sleep = lambda _: found.append([path.name for path in root.rglob("*")])
    shard = TensorShard(
        key="weight", global_shape=(4,), offset=(0,), shape=(4,), file="r.safetensors", name="0"
    )
    checkpointer = writer.Checkpointer(root, keep=1, what="dump")
    checkpointer.save(2, format.Snapshot({"0": torch.zeros(4)}, [shard], {}), {})
    try:
        checkpointer.wait()
    except StorageError as error:
        return found, str(error)
    raise AssertionError("it was written")


def test_what_a_failed_try_wrote_is_removed_before_the_next(tmp_path: Path) -> None:
    found, message = run_ranks(1, _found_while_waiting, tmp_path)[0]
    assert found == [[], [], [], []]
    assert message.startswith("the dump of step 2 could not be written, tried 4 times: [Errno 28]")
