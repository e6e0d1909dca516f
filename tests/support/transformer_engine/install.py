"""Put the reference in the extension's place in a process without a GPU."""

import os
import sys
import types
from contextlib import nullcontext
from functools import cache, lru_cache
from importlib import import_module, util
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo

from tests.support.transformer_engine.extension import make_extension
from tests.support.transformer_engine.locate import EXTENSION, FOLDER, has_extension

CARD = {"name": "reference", "multi_processor_count": 132, "total_memory": 80 << 30}
ATTENTION = "transformer_engine.pytorch.attention.dot_product_attention"
HOPPER = (9, 0)
_capability = list(HOPPER)
_CACHED = type(lru_cache(lambda: None))


def install_reference() -> None:
    """Import Transformer Engine over the reference; before megatron-core is imported.

    Does nothing where the extension is, which then computes.
    """
    if has_extension() or EXTENSION in sys.modules:
        return
    assert "megatron" not in sys.modules, "megatron-core has found no Transformer Engine already"
    sys.path.insert(0, str(FOLDER))
    _answer_as_a_card()
    _gather_singly()
    _import_over(make_extension())


def pretend_card(capability: tuple[int, int]) -> None:
    """Be a card of this compute capability from now on: MXFP8 wants Blackwell."""
    _capability[:] = capability
    for module in [m for name, m in sys.modules.items() if name.startswith("transformer_engine.")]:
        for member in list(vars(module).values()):
            if isinstance(member, _CACHED):  # it asked the card before
                member.cache_clear()
    quantization = sys.modules["transformer_engine.pytorch.quantization"]
    for name in [name for name in vars(quantization) if name.endswith("_SUPPORT")]:
        setattr(quantization, name, None)


def _import_over(extension: types.ModuleType) -> None:
    """Import the package as usual, but for the two places that load shared libraries."""
    sys.modules[EXTENSION] = extension
    spec = util.find_spec("transformer_engine")
    assert spec is not None and spec.loader is not None
    package = util.module_from_spec(spec)
    sys.modules["transformer_engine"] = package
    with patch.dict(os.environ, NVTE_PROJECT_BUILDING="1"):  # else it loads its core library
        common: Any = import_module("transformer_engine.common")
    common.load_framework_extension = lambda *_: None
    spec.loader.exec_module(package)
    # It took what the extension lists; the rest it may ask for by name as well.
    extensions: Any = import_module("transformer_engine.pytorch.cpp_extensions")
    extensions.__getattr__ = extension.__getattr__
    base: Any = import_module("transformer_engine.pytorch.module.base")
    _build_as_on_a_card(base.TransformerEngineBaseModule)
    _wait_once(import_module(f"{ATTENTION}.context_parallel"))
    distributed: Any = import_module("transformer_engine.pytorch.distributed")
    distributed._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    distributed._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)


def _build_as_on_a_card(module: Any) -> None:
    """Let modules be built: they ask torch for a GPU, and torch itself must go on finding none."""
    init = module.__init__

    def init_as_on_a_card(self: Any, *args: Any, **values: Any) -> None:
        with patch.object(torch.cuda, "is_available", lambda: True):
            init(self, *args, **values)

    module.__init__ = init_as_on_a_card


def _wait_once(context_parallel: Any) -> None:
    """Let each message be waited for once: gloo would wait for the second time for ever."""
    communicate = context_parallel.flash_attn_p2p_communicate

    def communicate_once(*args: Any) -> list[Any]:
        return [types.SimpleNamespace(wait=cache(work.wait)) for work in communicate(*args)]

    context_parallel.flash_attn_p2p_communicate = communicate_once


def _gather_singly() -> None:
    """Run collectives one after the other where gloo would have to coalesce them."""
    distributed: Any = torch.distributed
    coalescing = distributed._coalescing_manager

    def manager(group: Any = None, device: Any = None, async_ops: bool = False) -> Any:
        if device is None:  # megatron-core's, which gloo can
            return coalescing(group, async_ops=async_ops)
        return nullcontext(types.SimpleNamespace(wait=lambda: None))

    distributed._coalescing_manager = manager


def gather_bytes() -> None:
    """Let the distributed optimizer gather bytes, whatever their numbers; after the CPU host.

    Buckets of weights in FP8 and in BF16 are gathered together, which gloo would convert.
    """
    buffers: Any = import_module("megatron.core.distributed.param_and_grad_buffer")
    gather = buffers.dist_all_gather_func

    def gather_as_bytes(output: torch.Tensor, own: torch.Tensor, **how: Any) -> Any:
        return gather(output.view(torch.uint8), own.view(torch.uint8), **how)

    buffers.dist_all_gather_func = gather_as_bytes


def _answer_as_a_card() -> None:
    """Answer what Transformer Engine asks torch of the card, and of where tensors are."""
    cuda: Any = torch.cuda
    cuda.get_device_capability = lambda *_: tuple(_capability)
    cuda.get_device_properties = lambda *_: types.SimpleNamespace(
        major=_capability[0], minor=_capability[1], **CARD
    )
    cuda.is_current_stream_capturing = lambda: False
    version: Any = torch.version
    version.cuda = version.cuda or "13.0"
    tensor: Any = torch.Tensor
    tensor.is_cuda = property(lambda _: True)
    torch._dynamo.config.disable = True  # the compiler would ask that card for much more
