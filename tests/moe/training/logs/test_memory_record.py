"""The `memory` section of a record: modelled beside measured."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moe.config.experiment import Experiment, make_experiment
from moe.cost.memory_need import workload_of
from moe.training.logs import memory_record
from moe.training.logs.memory_record import MemoryMeter
from parallel.layout.placement import place
from parallel.planner.memory import peak_memory

MIB = 2**20


def experiment(**train: Any) -> Experiment:
    sizes = {"steps": 1, "seq_len": 64, "global_batch_size": 8, "micro_batch_size": 2}
    return make_experiment({"model": {"preset": "tiny"}, "train": sizes | train})


def meter(one: Experiment, device: str = "cpu") -> MemoryMeter:
    engine: Any = SimpleNamespace(device=torch.device(device), rank=0, world_size=1)
    return MemoryMeter(one, engine)


@pytest.fixture(autouse=True)
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What other ranks measured."""
    others: list[dict[str, Any]] = []
    monkeypatch.setattr(memory_record, "all_gather_objects", lambda own: [own, *others])
    return others


def test_the_peak_of_this_process_is_since_the_meter_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel's part is tested in test_host_memory.py."""
    kernel = {"VmRSS": 300 * MIB, "VmHWM": 900 * MIB}
    monkeypatch.setattr(memory_record, "process_bytes", kernel.__getitem__)
    monkeypatch.setattr(
        memory_record, "forget_process_peak", lambda: kernel.update(VmHWM=kernel["VmRSS"])
    )
    begun = meter(experiment())
    assert begun.section()["memory"]["measured"]["peak_bytes"] == 300 * MIB
    kernel |= {"VmRSS": 310 * MIB, "VmHWM": 364 * MIB}
    measured = begun.section()["memory"]["measured"]
    assert (measured["start_bytes"], measured["peak_bytes"]) == (300 * MIB, 364 * MIB)
    assert (measured["boundary"], measured["kind"]) == ("process resident size", "measured")


def test_the_fullest_rank_is_recorded(gathered: list[dict[str, Any]]) -> None:
    gathered += [{"rank": 1, "peak_bytes": 2**50}, {"rank": 2, "peak_bytes": None}]
    assert meter(experiment()).section()["memory"]["measured"] == gathered[0]


def test_a_peak_that_cannot_begin_anew_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError

    monkeypatch.setattr(memory_record, "forget_process_peak", refuse)
    measured = meter(experiment()).section()["memory"]["measured"]
    assert measured["peak_bytes"] is None
    assert measured["start_bytes"] > 0


def test_on_a_gpu_it_is_what_torch_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[Any] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 7)
    measured = meter(experiment(), "cuda").section()["memory"]["measured"]
    assert (measured["start_bytes"], measured["peak_bytes"]) == (3, 7)
    assert measured["boundary"] == "device memory allocated"
    assert reset == [torch.device("cuda")]


def test_what_was_modelled_stands_beside_it() -> None:
    one = experiment()
    expected = peak_memory(workload_of(one, place(one.parallel, 1)))
    modelled = meter(one).section()["memory"]["modelled"]
    assert modelled["total_bytes"] == expected.total_bytes
    assert modelled["kind"] == "modelled"
    tuned = meter(experiment(mode="dpo", init="/base")).section()["memory"]["modelled"]
    assert tuned["reference_bytes"] > 0
    assert tuned["total_bytes"] == expected.total_bytes + tuned["reference_bytes"]
    frozen = meter(experiment(trainable=["*.router.*"])).section()["memory"]
    assert frozen["modelled"] is None
