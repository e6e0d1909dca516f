"""What a GPU needs beside tensors: communicators, dispatchers' buffers, fragmentation."""

from dataclasses import replace
from math import lcm
from typing import Any

from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.layout.placement import place
from parallel.planner.device_memory import (
    FRAGMENTATION_SHARE,
    NCCL_CHANNEL_BYTES,
    NCCL_CHANNELS,
    DeviceMemory,
    device_memory,
)
from parallel.planner.memory import peak_memory
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision
from tests.support.model_shapes import SPARSE

MANY_EXPERTS = replace(SPARSE, num_experts=64)
COMMUNICATOR = NCCL_CHANNELS * NCCL_CHANNEL_BYTES


def on_device(num_ranks: int | None = None, imbalance: float = 1.0, **layout: Any) -> DeviceMemory:
    laid = Layout(**layout)
    fewest = lcm(laid.tp * laid.cp * laid.pp, laid.expert_tp * laid.ep * laid.pp)
    work = Workload(
        shape=MANY_EXPERTS,
        placement=place(laid, num_ranks or fewest),
        batch=BatchSize(seq_len=32, micro_batch_size=1, global_batch_size=64),
        precision=Precision(kernels="te", dtype="bf16"),
        expert_imbalance=imbalance,
    )
    return device_memory(work, peak_memory(work))


def test_one_gpu_has_no_communicators_and_no_dispatcher() -> None:
    alone = on_device()
    assert (alone.communicator_bytes, alone.dispatch_buffer_bytes) == (0, 0)
    assert alone.fragmentation_bytes == round(FRAGMENTATION_SHARE * alone.allocated.total_bytes)


def test_each_dimension_of_several_ranks_has_a_communicator() -> None:
    # Tensor parallel, and all ranks.
    assert on_device(tp=2).communicator_bytes == 3 * COMMUNICATOR  # and experts' replicas
    # Stages, and all ranks.
    assert on_device(pp=2).communicator_bytes == 2 * COMMUNICATOR
    # Data parallel, experts, all; with etp also both together.
    assert on_device(ep=4).communicator_bytes == 3 * COMMUNICATOR
    assert on_device(ep=2, etp=2, num_ranks=4).communicator_bytes == 5 * COMMUNICATOR


def test_dispatchers_of_tensors_hold_no_buffers() -> None:
    for dispatcher in ("alltoall", "allgather"):
        assert on_device(ep=4, dispatcher=dispatcher).dispatch_buffer_bytes == 0


def test_deepep_buffers_by_hand() -> None:
    token = 2 * 8 + 8 + 128 * (8 + 4 + 4)
    flex = {"dispatcher": "flex", "flex_backend": "deepep"}
    one_node = on_device(ep=4, **flex).dispatch_buffer_bytes
    assert one_node == 2**25 + 10 * 4 * 256 * token
    two_nodes = on_device(ep=16, **flex).dispatch_buffer_bytes
    assert two_nodes == 2**25 + 10 * 8 * 288 * token + 2 * 10 * 2 * 128 * token
    largest = on_device(ep=64, **flex).dispatch_buffer_bytes
    assert largest == 2**25 + 10 * 8 * 288 * token + 2 * 10 * 8 * 128 * token


def test_hybridep_holds_every_token_of_every_rank() -> None:
    flex = {"dispatcher": "flex", "flex_backend": "hybridep"}
    # 32 tokens a rank; 16 or 4 experts a rank, of 4 or 8 ranks of a node.
    assert on_device(ep=4, **flex).dispatch_buffer_bytes == 4 * 32 * (16 + 4 * 64)
    assert on_device(ep=16, **flex).dispatch_buffer_bytes == 2 * 16 * 32 * (16 + 4 * 32)


def test_imbalance_is_in_tensors_and_not_in_buffers() -> None:
    flex = {"dispatcher": "flex", "flex_backend": "deepep", "ep": 4}
    even, uneven = on_device(**flex), on_device(imbalance=1.5, **flex)
    assert even.dispatch_buffer_bytes == uneven.dispatch_buffer_bytes
    assert even.allocated.activation_bytes < uneven.allocated.activation_bytes


def test_terms_add_up() -> None:
    found = on_device(tp=2, pp=2, ep=2)
    terms = found.as_json()
    assert all(name.endswith("_bytes") for name in terms)
    assert {"parameter_bytes", "activation_bytes", "context_bytes"} <= set(terms)
    assert sum(terms.values()) == found.total_bytes > found.reserved_bytes
