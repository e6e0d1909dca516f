"""Several ranks of one program on this machine, under torchrun. Imports torch only when used."""

import logging
import os
import sys
from collections.abc import Sequence


def is_rank_of_a_group() -> bool:
    """Return whether torchrun, srun or the like started this process as one rank of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch_ranks(arguments: Sequence[str], nproc: int, max_restarts: int = 0) -> None:
    """Run this Python with `arguments` as `nproc` ranks of this machine, under torchrun.

    Args:
        arguments: As after `python`, for example `-m`, a module, its arguments.
        nproc: Number of ranks.
        max_restarts: Times that all ranks are started again after one failed.

    Raises:
        SignalException: A signal ended the ranks (of `torch.distributed.elastic`).
        ChildFailedError: A rank failed once too often (likewise); has every rank's exit code.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        run_id=f"moescale-{os.getpid()}",
        max_restarts=max_restarts,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2",
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // nproc)))
    # Ranks report what is wrong, and the caller how it ended: torchrun's own log is noise.
    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    elastic_launch(config, sys.executable)(*arguments)
