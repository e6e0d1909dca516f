"""The engine's import: quiet, and without the compiler that a run on a CPU never needs."""

import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from parallel.engine.imports import deferred_compilation, hidden_module, quieten_engine
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import make, started

pytestmark = pytest.mark.engine
COMPILER = "torch._inductor.compile_fx"

LOADED = f"""
import sys
from parallel.engine.imports import import_engine
import_engine()
import moe.training.loop
print("{COMPILER}" in sys.modules, "wandb" in sys.modules)
"""


def test_import_loads_no_compiler_and_no_logger_and_prints_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("False False\n", "", 0)


OPTIMIZER = """
import sys
import torch
from moe.training.optimization.adamw import GroupStepAdamW
weight = torch.ones(3, requires_grad=True)
optimizer = GroupStepAdamW([weight], lr=0.1)
weight.sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules, weight.grad, optimizer.param_groups[0]["step"])
"""


def test_the_optimizer_loads_no_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPTIMIZER], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("False None 1\n", 0), done.stderr


def test_what_the_compiler_says_of_megatron_is_not_told() -> None:
    """Python compiles it at each start where it may write no bytecode, or `uv` installed it."""
    doubtful = "''\n1 is 1"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quieten_engine()
        compile(doubtful, "/lib/site-packages/megatron/core/inference/some_file.py", "exec")
        with pytest.raises(SyntaxError, match="is"):
            compile(doubtful, "/home/megatron/our_file.py", "exec")


def test_a_module_is_hidden_only_meanwhile() -> None:
    name = "wave"  # any module that nothing else loads
    sys.modules.pop(name, None)
    with hidden_module(name), pytest.raises(ImportError):
        import_module(name)
    module = import_module(name)
    with hidden_module(name):
        assert import_module(name) is module


def _train_a_step(experiment: Any) -> bool:
    from moe.training.step import train_step

    with started(experiment) as trainer:
        train_step(trainer, 0)
        return COMPILER in sys.modules


@pytest.mark.parametrize("activation", ["swiglu", "clamped_swiglu"])
def test_training_on_a_cpu_compiles_nothing(activation: str, store: Path) -> None:
    moe = {
        "num_experts": 8, "top_k": 2, "expert_ffn_hidden_size": 32, "expert_bias": True,
        "score_function": "sigmoid", "shared_expert_ffn_hidden_size": 16,
        "load_balancing": "seq_aux_loss", "z_loss_coefficient": 0.01,
        "first_dense_layers": 1,
    }  # fmt: skip
    model = {"moe": moe, "activation": activation}
    assert run_ranks(1, _train_a_step, make(store, model=model)) == [False]


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


def test_a_module_is_compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **_: ("compiled", module))
    module = torch.nn.Identity()
    with deferred_compilation():
        assert torch.compile(module) == ("compiled", module)
