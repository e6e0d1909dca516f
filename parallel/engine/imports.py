"""The import of megatron-core: quiet, and without what it need not load."""

import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch

from parallel.engine.megatron_version import MEGATRON_VERSION
from parallel.engine.optional_packages import OPTIONAL, hide_broken_packages, import_fault
from parallel.errors import ParallelError


def quieten_engine() -> None:
    """Silence warnings of megatron-core and torch about missing kernels and deprecated calls.

    The run record names the kernels that ran. Call this before importing megatron-core.
    """
    warnings.filterwarnings("ignore", module=r"megatron\.")
    # Where Python compiles it anew at each start; the compiler names a file instead of a module.
    warnings.filterwarnings("ignore", category=SyntaxWarning, module=r".*[/\\]megatron[/\\]core\b")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d")
    for name in ("megatron", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)


def import_engine() -> None:
    """Import megatron-core, quietly and before anything else does; later calls cost nothing.

    Optional packages that are broken are as if they were not installed.

    Raises:
        ParallelError: A package that this megatron-core needs is missing or broken.
    """
    quieten_engine()
    with deferred_compilation(), hidden_module("wandb"):
        if "megatron.core" not in sys.modules:
            hide_broken_packages()
        try:
            import megatron.core  # noqa: F401
        except ImportError as error:
            package = (error.name or "another package").split(".")[0]
            reason = import_fault(package) if package in OPTIONAL else str(error)
            raise ParallelError(
                f"megatron-core {MEGATRON_VERSION} cannot be imported without {package}"
                f" ({reason}): install {package} as torch's build wants it"
            ) from None


@contextmanager
def hidden_module(name: str) -> Iterator[None]:
    """Make a module that is not loaded yet look as if it were not installed, meanwhile.

    megatron-core's inference engine takes wandb wherever it is, 1 second of CPU time at each start,
    to log what this product never runs. Our own logger imports it when it is asked for. An entry
    `None` makes `import` raise (Python's reference, 5.3.1).
    """
    hides = name not in sys.modules
    if hides:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hides:
            del sys.modules[name]


@contextmanager
def deferred_compilation() -> Iterator[None]:
    """Compile functions that are decorated with `torch.compile` meanwhile at their first call.

    megatron-core decorates its fused kernels so when it is imported, and the decorator alone loads
    all of torch's compiler: 2 of the 7 seconds of CPU time that a training process takes to start,
    for functions that the kernel set `torch` never calls. Transformer Engine defers in the same
    way (`transformer_engine/pytorch/jit.py`, `lazy_compile`).
    """
    compile_now = torch.compile
    torch.compile = partial(_defer, compile_now)
    try:
        yield
    finally:
        torch.compile = compile_now


def _defer(compile_now: Callable[..., Any], function: Any = None, **options: Any) -> Any:
    """Act as `torch.compile`, as a call or as a decorator with options."""
    if function is None:
        return partial(_defer, compile_now, **options)
    if not inspect.isfunction(function):
        return compile_now(function, **options)
    compiled: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not compiled:
            compiled.append(compile_now(function, **options))
        return compiled[0](*args, **kwargs)

    return call
