"""Whether a run fits in memory is said before it takes any."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moe.config.experiment import Experiment, make_experiment
from moe.cost.memory_need import stage_needs, summed
from moe.errors import ConfigError
from moe.training.startup import memory
from moe.training.startup.memory import check_memory
from moe.training.startup.preflight import check_before_start
from parallel.hardware.host_memory import MemoryRoom
from parallel.layout.placement import place
from parallel.planner.device_memory import CUDA_CONTEXT_BYTES

PLACES = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "CUDA_DEVICE_MAX_CONNECTIONS")


@pytest.fixture(autouse=True)
def no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACES:
        monkeypatch.setenv(name, "")  # what code under test sets is taken back, too
        monkeypatch.delenv(name)


def experiment(**parallel: Any) -> Experiment:
    return make_experiment(
        {
            "model": {"preset": "tiny"},
            "train": {"steps": 1, "seq_len": 64, "global_batch_size": 8},
            "data": {"store": "/nowhere/store"},
            "parallel": {"device": "cpu", **parallel},
        }
    )


def machine(monkeypatch: pytest.MonkeyPatch, total: int, free: int | None = None) -> None:
    room = MemoryRoom(total_bytes=total, free_bytes=total if free is None else free)
    monkeypatch.setattr(memory, "host_memory", lambda: room)


def state_bytes(one: Experiment, ranks: int) -> list[int]:
    """Bytes of the state of each stage's ranks."""
    needs = stage_needs(one, place(one.parallel, ranks), on_gpu=False)
    return [need.sure_bytes for need in needs]


def test_state_beyond_the_machine_is_refused_before_the_store_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (needed,) = state_bytes(experiment(), 1)
    machine(monkeypatch, needed - 1)
    end = r'smaller model; parallel.memory_check = "warn" starts all the same$'
    with pytest.raises(ConfigError, match=end) as refused:
        check_before_start(experiment(), 1, "rank")
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)
    with pytest.raises(Exception, match="/nowhere/store"):
        check_before_start(experiment(), 1)


def test_all_ranks_of_a_launcher_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    one = experiment(pp=2)
    needed = 2 * sum(state_bytes(one, 4))
    machine(monkeypatch, needed)
    check_memory(one, place(one.parallel, 4), "launcher")
    machine(monkeypatch, needed - 1)
    with pytest.raises(ConfigError):
        check_memory(one, place(one.parallel, 4), "launcher")


@pytest.mark.parametrize(("local_size", "stages"), [("2", (1, 1)), ("3", (0, 1, 1)), (None, (1,))])
def test_a_rank_counts_the_ranks_beside_it(
    monkeypatch: pytest.MonkeyPatch, local_size: str | None, stages: tuple[int, ...]
) -> None:
    """Rank 3 of 4 is the last of its machine; without a count of these it is sure of itself."""
    monkeypatch.setenv("RANK", "3")
    if local_size is not None:
        monkeypatch.setenv("LOCAL_RANK", str(int(local_size) - 1))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local_size)
    one = experiment(pp=2)
    needed = sum(state_bytes(one, 4)[stage] for stage in stages)
    machine(monkeypatch, needed)
    check_memory(one, place(one.parallel, 4), "rank")
    machine(monkeypatch, needed - 1)
    with pytest.raises(ConfigError):
        check_memory(one, place(one.parallel, 4), "rank")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_what_is_modelled_warns_on_rank_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, lines: int
) -> None:
    monkeypatch.setenv("RANK", rank)
    one = experiment()
    need = summed(stage_needs(one, place(one.parallel, 2), on_gpu=False))
    machine(monkeypatch, 2**40, need.sure_bytes)
    check_memory(one, place(one.parallel, 2), "rank")
    text = capsys.readouterr().err
    assert text.count("\n") == text.count("moe: warning: this machine has 1,099.5 GB") == lines


def test_a_refusal_can_be_passed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = experiment(memory_check="warn")
    machine(monkeypatch, 1)
    check_memory(one, place(one.parallel, 2), "launcher")
    assert capsys.readouterr().err == ""  # rank 0 says it
    check_memory(one, place(one.parallel, 2), "rank")
    assert capsys.readouterr().err.startswith("moe: warning: this machine has 0.0 GB of memory")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A GPU that torch finds; `free` and `total` are its bytes, `asked` who was asked for them."""
    card = SimpleNamespace(total=2**40, free=2**40, asked=[])

    def memory_of(device: torch.device) -> tuple[int, int]:
        card.asked.append(device.index)
        return card.free, card.total

    def properties(_device: Any) -> SimpleNamespace:
        return SimpleNamespace(name="NVIDIA H200", total_memory=card.total)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory_of)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    return card


def test_every_rank_of_a_gpu_decides_by_the_fullest_stage(
    monkeypatch: pytest.MonkeyPatch, card: SimpleNamespace
) -> None:
    one = experiment(device="auto", pp=2)
    card.total = max(state_bytes(one, 2))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_memory(one, place(one.parallel, 2), "rank")
    assert card.asked == [1]
    card.total -= 1
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ConfigError, match="^NVIDIA H200 has .*--gpu H200` finds"):
            check_memory(one, place(one.parallel, 2), "rank")


def test_a_launcher_leaves_the_card_alone(card: SimpleNamespace) -> None:
    one = experiment(device="auto")
    check_memory(one, place(one.parallel, 2), "launcher")
    card.total = 1
    with pytest.raises(ConfigError, match="NVIDIA H200"):
        check_memory(one, place(one.parallel, 2), "launcher")
    assert card.asked == []


def test_memory_that_others_hold_warns(
    card: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    one = experiment(device="auto")
    check_memory(one, place(one.parallel, 1), "rank")
    assert capsys.readouterr().err == ""
    card.free = 0
    check_memory(one, place(one.parallel, 1), "rank")
    expected = "NVIDIA H200 has 1,099.5 GB of memory, 1.0 GB of it free for this run, and"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(("short_bytes", "lines"), [(0, 0), (1, 1)])
def test_the_context_that_asking_made_is_not_counted_twice(
    card: SimpleNamespace, capsys: pytest.CaptureFixture[str], short_bytes: int, lines: int
) -> None:
    one = experiment(device="auto")
    (need,) = stage_needs(one, place(one.parallel, 1), on_gpu=True)
    assert need.modelled_bytes is not None
    card.free = need.modelled_bytes - CUDA_CONTEXT_BYTES - short_bytes
    check_memory(one, place(one.parallel, 1), "rank")
    assert capsys.readouterr().err.count("moe: warning") == lines
