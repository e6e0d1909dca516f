"""Ranks in which Transformer Engine is, from a server of their own.

megatron-core decides when it is imported whether Transformer Engine is there; all other tests'
ranks are forked from a server where it is not.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any
from unittest.mock import patch

from tests.support import distributed
from tests.support.needs import lack, need
from tests.support.transformer_engine.locate import has_extension

_server = forkserver.ForkServer()
_server.set_forkserver_preload(["tests.support.transformer_engine.rank_imports"])


def run_te_ranks(num_ranks: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Run `function(*args)` in each of `num_ranks` processes; returns what each gave, by rank.

    Over the extension a rank is a fresh process with a GPU of its own: CUDA does not survive a
    fork.
    """
    need("transformer_engine")
    if has_extension():
        import torch

        if torch.cuda.device_count() < num_ranks:
            lack("gpus", f"{num_ranks} of them")
        with patch.object(distributed, "CONTEXT", multiprocessing.get_context("spawn")):
            return distributed.run_ranks(num_ranks, function, *args)
    with patch.object(forkserver, "connect_to_new_process", _server.connect_to_new_process):
        return distributed.run_ranks(num_ranks, function, *args)
