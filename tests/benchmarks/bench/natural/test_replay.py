"""Recordings as the routing of a benchmark: what stands for which layer and token."""

from pathlib import Path
from statistics import fmean

import pytest
import torch

from benchmarks.bench.forced_routing import RoutingProfile, max_over_mean
from benchmarks.bench.layer_shape import LayerShape
from benchmarks.bench.natural.layer_routing import LayerRouting, layer_routings
from benchmarks.bench.natural.replay import RECORDINGS, Replay, open_replay
from benchmarks.errors import BenchmarkError
from moe.errors import ConfigError
from tests.support.routing_recordings import write_recording


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    path = write_recording(tmp_path / "routing.safetensors", layers=(2, 4), tokens=10)
    opened = open_replay(str(path))
    assert opened is not None
    return opened


def test_tokens_are_consecutive_and_begin_again(replay: Replay) -> None:
    # Token t of layer l goes to experts t + l and t + l + 1, of eight; there are ten tokens.
    assert replay.experts(2, 8, 4).tolist() == [[2, 3], [3, 4], [2, 3], [3, 4]]
    assert replay.experts(4, 25, 1).tolist() == replay.experts(4, 5, 1).tolist() == [[1, 2]]


def test_layers_are_taken_in_order_and_begin_again(replay: Replay) -> None:
    assert [replay.recorded_layer(index) for index in range(5)] == [2, 4, 2, 4, 2]
    source = replay.source([1, 2, 5], 4)
    # Numbers of layers count from 0 in results.
    assert source["recorded_layers"] == {"1": 1, "2": 3, "5": 1}
    assert source["layers_repeat"]
    assert not replay.source([1, 2], 4)["layers_repeat"]


@pytest.mark.parametrize(("num_experts", "top_k"), [(16, 2), (8, 1)])
def test_other_experts_are_refused(replay: Replay, num_experts: int, top_k: int) -> None:
    replay.check_fits(8, 2)
    with pytest.raises(BenchmarkError, match="it chose 2 of 8 experts, this model has"):
        replay.check_fits(num_experts, top_k)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    assert open_replay(None) is None
    with pytest.raises(ConfigError, match=r"none\.safetensors: no record .*: No such file"):
        open_replay(str(tmp_path / "none.safetensors"))
    with pytest.raises(BenchmarkError, match="--replay 'large': there is study"):
        open_replay("large")


def test_each_recorded_layer_is_a_routing_of_its_own(replay: Replay) -> None:
    profiles = [RoutingProfile("natural"), RoutingProfile("forced")]
    routings = layer_routings(profiles, replay)
    assert [routing.recorded_layer for routing in routings] == [2, 4, None]
    shape = LayerShape(hidden_size=8, expert_ffn_hidden_size=8, num_experts=8, top_k=2, tokens=3)

    def experts(routing: LayerRouting, repeat: int, rank: int) -> list[list[int]]:
        found = routing.experts(shape, repeat, rank, 2)
        assert found is not None
        return found.tolist()

    # Repeat after repeat, and rank after rank, other tokens of the recording; the same of what is
    # drawn.
    assert experts(routings[0], 0, 1) == replay.experts(2, 3, 3).tolist()
    assert experts(routings[0], 1, 0) == replay.experts(2, 6, 3).tolist()
    assert experts(routings[2], 0, 0) == experts(routings[2], 1, 0)


def test_the_recording_that_ships_is_of_a_trained_model() -> None:
    study = open_replay("study")
    assert study is not None
    assert (RECORDINGS / "study.safetensors").stat().st_size < 300_000
    assert (study.origin.num_experts, study.origin.top_k) == (16, 2)
    assert (study.origin.step, study.num_tokens, sorted(study.layers)) == (1987, 16_384, [1, 2, 3])
    for experts in study.layers.values():
        loads = [max_over_mean(part, 16) for part in experts.split(1024)]
        # Neither even nor, as an untrained model's may be, all tokens at the same two experts.
        assert 1.2 < fmean(loads) < 4
    together = torch.stack(list(study.layers.values()))
    assert (together[0] != together[1]).any()
