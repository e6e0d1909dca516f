"""Adaptations to the CPU: each states its reason, each works, none where a GPU is used."""

import contextlib
import io
import subprocess
import sys

import pytest

from parallel.engine.cpu_host import ADAPTATIONS
from tests.support.distributed import run_ranks

pytestmark = pytest.mark.engine


def _run(code: str) -> str:
    """Run `code` in a process of its own, since adaptations cannot be undone; returns its output.

    The process has imported megatron-core already.
    """
    printed: str = run_ranks(1, _printed, code)[0]
    return printed


def _printed(code: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return out.getvalue().strip()


def test_every_adaptation_states_reason_and_versions() -> None:
    assert all(adaptation.reason and adaptation.versions for adaptation in ADAPTATIONS)


def test_import_changes_nothing() -> None:
    """In a fresh interpreter, where nothing has been imported before."""
    names = "torch.cuda.current_device, torch.cuda.Stream, torch.Tensor.cuda, torch.empty"
    code = f"import torch; before = ({names}); from parallel.engine import cpu_host, start; "
    code += f"print(before == ({names}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_a_gpu_process_is_not_changed() -> None:
    """A process that finds a GPU never installs them (the GPU is faked up to that choice)."""
    code = """
import torch
from parallel.engine import start
from parallel.layout.layout import Layout
installed = []
start.install_cpu_host = lambda: installed.append(1)
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
class Chosen(Exception): pass
def chosen(device): raise Chosen(device.type)
torch.cuda.set_device = chosen
try:
    start.start_engine(Layout(), seed=0)
except Chosen as device:
    print(device, installed, hasattr(torch, "_moescale_cpu_host"))
"""
    assert _run(code) == "cuda [] False"


def test_garbage_collection_skips_import_time_objects() -> None:
    code = """
import gc
import megatron.core.models.gpt
from parallel.engine.start import start_engine, stop_engine
from parallel.layout.layout import Layout
start_engine(Layout(), seed=0)
stop_engine()
print(len(gc.get_objects()) < gc.get_freeze_count() / 10)
"""
    assert _run(code) == "True"


def test_cuda_names_mean_the_cpu() -> None:
    code = """
import torch
from parallel.engine.cpu_host import install_cpu_host
install_cpu_host(); install_cpu_host()
x = torch.zeros(2, device="cuda", pin_memory=True).cuda().to("cuda")
event = torch.cuda.current_stream().record_event()
event.synchronize()
torch.cuda.manual_seed(5)
state = torch.cuda.get_rng_state()
a = torch.rand(3)
torch.cuda.set_rng_state(state)
print(x.device, x.type(), event.query(), torch.equal(a, torch.rand(3)))
print(torch.empty(2, device=torch.device("cuda", 0)).device, torch.cuda.current_device())
"""
    assert _run(code).splitlines() == ["cpu torch.cuda.FloatTensor True True", "cpu cpu"]


def test_a_single_rank_sends_itself_nothing() -> None:
    code = """
import torch, torch.distributed as dist
sent = []
dist.all_gather_into_tensor = lambda *_, **__: sent.append("gather")
dist.reduce_scatter_tensor = lambda *_, **__: sent.append("reduce")
from parallel.engine.cpu_host import install_cpu_host
install_cpu_host()
from megatron.core.distributed import param_and_grad_buffer as buffers
class Group:
    def __init__(self, ranks): self.size = lambda: ranks
x = torch.ones(4)
for call in (buffers.dist_all_gather_func, buffers.dist_reduce_scatter_func):
    call(x, x, group=Group(1), async_op=False)
print(sent)
for call in (buffers.dist_all_gather_func, buffers.dist_reduce_scatter_func):
    call(x, x[:2], group=Group(2), async_op=False)
    call(x, x, group=Group(1), async_op=True)
    call(x, x.clone(), group=Group(1), async_op=False)
print(sent == ["gather"] * 3 + ["reduce"] * 3)
"""
    assert _run(code).splitlines() == ["[]", "True"]


def test_chunks_are_copied_only_out_of_order() -> None:
    code = """
import torch
from parallel.engine.cpu_host import install_cpu_host
install_cpu_host()
from megatron.core.transformer.moe.token_dispatcher import sort_chunks_by_idxs as sort
x, sizes = torch.arange(3.), torch.tensor([1, 2])
same, weights = sort(x, sizes, torch.tensor([0, 1]), probs=x)
print(same is x and weights is x)
turned, weights = sort(x, sizes, torch.tensor([1, 0]), probs=-x)
print(turned.tolist(), weights.tolist())
"""
    assert _run(code).splitlines() == ["True", "[1.0, 2.0, 0.0] [-1.0, -2.0, -0.0]"]


def test_clipping_scales_gradients_in_place() -> None:
    code = """
import torch
from parallel.engine.cpu_host import install_cpu_host
install_cpu_host()
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
weight = torch.nn.Parameter(torch.zeros(2))
weight.grad = gradient = torch.tensor([3.0, 4.0])
clip_grad_by_total_norm_fp32([weight], 1.0, 5.0)
print(weight.grad is gradient, torch.allclose(gradient, torch.tensor([0.6, 0.8])))
"""
    assert _run(code) == "True True"
