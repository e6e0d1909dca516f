"""Gloo ranks for tests, forked from one server that has imported the engine already.

Every job gets fresh processes, so no layout leaves anything behind for the next, and a job may
kill its own. Ranks meet at a store that the test's process serves on a port the system chose.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.rank_imports"])


class RankFailedError(AssertionError):
    """A rank raised or died; the message is its traceback."""


class Ranks:
    """Processes of one job, each to give one result."""

    def __init__(self, num_ranks: int, function: Callable[..., Any], *args: Any) -> None:
        """Start `function(*args)` in every rank; it must be importable by name."""
        from torch.distributed import TCPStore

        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        for rank in range(num_ranks):
            mine, theirs = CONTEXT.Pipe(duplex=False)
            place = {"RANK": str(rank), "WORLD_SIZE": str(num_ranks)}
            process = CONTEXT.Process(
                target=_be_rank,
                args=(place | {"MASTER_PORT": str(self._store.port)}, theirs, function, args),
            )
            process.start()
            theirs.close()
            self.processes.append(process)
            self._connections.append(mine)

    def results(self, timeout_s: float = 600.0) -> list[Any]:
        """Wait for all ranks; returns what each gave, by rank.

        Raises:
            RankError: A rank raised, died, or gave nothing in time. The others are killed.
        """
        try:
            return self._collect(timeout_s)
        finally:
            self.kill()

    def _collect(self, timeout_s: float) -> list[Any]:
        waiting = {connection: rank for rank, connection in enumerate(self._connections)}
        results: list[Any] = [None] * len(waiting)
        while waiting:
            ready = wait(list(waiting), timeout=timeout_s)
            if not ready:
                raise RankFailedError(
                    f"ranks {sorted(waiting.values())}: nothing for {timeout_s} s"
                )
            for connection in ready:
                rank = waiting.pop(connection)
                try:
                    fault, results[rank] = connection.recv()
                except EOFError:
                    fault = "died"
                if fault:
                    raise RankFailedError(f"rank {rank} of {len(results)}: {fault}")
        return results

    def kill(self) -> None:
        """End what still runs."""
        for process in self.processes:
            process.kill()
            process.join()


def run_ranks(num_ranks: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Run `function(*args)` in each of `num_ranks` processes; returns what each gave, by rank."""
    return Ranks(num_ranks, function, *args).results()


def _be_rank(
    place: dict[str, str],
    connection: Connection,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    # The store is served by the test's process, as torchrun's agent serves it.
    os.environ |= place | {
        "LOCAL_RANK": place["RANK"],
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    import torch

    torch.set_num_threads(1)
    try:
        connection.send((None, function(*args)))
    except BaseException:
        connection.send((traceback.format_exc(), None))
        raise
