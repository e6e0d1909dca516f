"""The engine's import: quiet, and without what it need not load."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from parallel.engine.imports import deferred_compilation

pytestmark = pytest.mark.engine

LOADED = """
import sys
from parallel.engine.imports import import_engine
import_engine()
import moe.training.loop
print([name for name in ("torch._dynamo", "torch._inductor.compile_fx") if name in sys.modules])
"""


def test_the_engine_is_imported_without_the_compiler_and_without_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def test_a_function_is_compiled_at_its_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def fake_compile(function: Any, **options: Any) -> Any:
        compiled.append((function.__name__, options))
        return lambda x: 10 * function(x)

    monkeypatch.setattr(torch, "compile", fake_compile)
    with deferred_compilation():

        @torch.compile
        def plain(x: int) -> int:
            return x + 1

        @torch.compile(dynamic=True)
        def with_options(x: int) -> int:
            return x + 2

    assert torch.compile is fake_compile
    assert not compiled
    assert [plain(1), plain(2), with_options(3)] == [20, 30, 50]
    assert compiled == [("plain", {}), ("with_options", {"dynamic": True})]


def test_what_is_no_function_is_compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **_: ("compiled", module))
    with deferred_compilation():
        assert torch.compile(42) == ("compiled", 42)
