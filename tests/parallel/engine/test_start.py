"""Which device a process, and which GPU a rank takes."""

import os

import pytest
import torch

from parallel.engine.start import GPU_PROMISES, card_of_rank, choose_device, set_queues
from parallel.errors import ParallelError
from parallel.layout.layout import Layout


@pytest.mark.parametrize("local_rank", [0, 3])
def test_rank_takes_the_card_of_its_number(
    local_rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert card_of_rank(local_rank) == torch.device("cuda", local_rank)


@pytest.mark.parametrize(("local_rank", "cards"), [(4, 4), (7, 4), (1, 1)])
def test_node_with_fewer_cards_than_ranks_is_refused(
    local_rank: int, cards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where nodes differ, or where each rank is shown one card alone."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    with pytest.raises(ParallelError, match=f"LOCAL_RANK={local_rank}.* rank {cards} GPUs"):
        card_of_rank(local_rank)


@pytest.mark.parametrize("name", GPU_PROMISES)
def test_auto_takes_no_cpu_in_a_job_that_was_given_gpus(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for one in GPU_PROMISES:
        monkeypatch.delenv(one, raising=False)
    for none in ("", "0"):
        monkeypatch.setenv(name, none)
        assert choose_device("auto") == "cpu"
    monkeypatch.setenv(name, "4")
    with pytest.raises(
        ParallelError, match=f'parallel.device = "auto".*{name}=4.*torch finds none'
    ):
        choose_device("auto")
    assert choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"


@pytest.mark.parametrize(
    ("overlap_experts", "set_before", "queues"),
    [(False, None, "1"), (True, None, "8"), (True, "32", "32"), (False, "2", "2")],
)
def test_queues_of_kernels_are_those_that_the_layout_wants(
    overlap_experts: bool, set_before: str | None, queues: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "CUDA_DEVICE_MAX_CONNECTIONS"
    monkeypatch.setenv(name, set_before or "")
    if set_before is None:
        monkeypatch.delenv(name)
    set_queues(Layout(ep=2, overlap_experts=overlap_experts))
    assert os.environ[name] == queues
