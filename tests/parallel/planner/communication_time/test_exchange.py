"""Expert exchange: where tokens go, by counting; dispatchers against each other."""

import random
from dataclasses import replace

import pytest

from parallel.errors import ParallelError
from parallel.hardware.card import load_card
from parallel.hardware.links import Links
from parallel.planner.communication_time.expert_exchange import (
    Dispatcher,
    ExchangeSizes,
    exchange_seconds,
)
from parallel.planner.communication_time.routing_spread import expected_bins


def links_of(name: str) -> Links:
    links = load_card(name).links
    assert links is not None
    return links


H100 = links_of("h100")
SIZES = ExchangeSizes(tokens=4096, hidden=7168, top_k=8, experts=256, ranks=64, ranks_per_domain=8)


def counted(bins: int, experts: int, top_k: int, groups: int, chosen: int) -> float:
    """Return the mean number of bins over drawn tokens."""
    draw = random.Random(7)
    in_group, in_bin, total, draws = experts // groups, experts // bins, 0, 4_000
    for _ in range(draws):
        open_experts = [
            group * in_group + place
            for group in draw.sample(range(groups), chosen)
            for place in range(in_group)
        ]
        total += len({expert // in_bin for expert in draw.sample(open_experts, top_k)})
    return total / draws


@pytest.mark.parametrize(
    ("bins", "experts", "top_k", "groups", "chosen"),
    [(8, 256, 8, 1, 1), (8, 256, 8, 8, 4), (4, 256, 8, 8, 4), (2, 256, 8, 8, 4),
     (64, 256, 8, 8, 4), (8, 8, 2, 1, 1), (16, 64, 6, 1, 1)],
)  # fmt: skip
def test_spread_equals_counting(
    bins: int, experts: int, top_k: int, groups: int, chosen: int
) -> None:
    expected = expected_bins(bins, experts, top_k, groups, chosen)
    assert expected == pytest.approx(counted(bins, experts, top_k, groups, chosen), rel=0.02)


def test_spread_at_its_ends() -> None:
    assert expected_bins(1, 64, 6) == pytest.approx(1)
    assert expected_bins(8, 8, 8) == pytest.approx(8)
    assert expected_bins(64, 64, 6) == pytest.approx(6)
    with pytest.raises(ParallelError, match="top_k 9: more than the 8 experts"):
        expected_bins(2, 64, 9, 8, 1)
    with pytest.raises(ParallelError, match="bins 3"):
        expected_bins(3, 64, 6)
    with pytest.raises(ParallelError, match="groups 5"):
        expected_bins(2, 64, 6, 5)


def test_sending_a_token_once_to_a_node_wins_over_copies() -> None:
    seconds = {name: exchange_seconds(H100, SIZES, name).seconds for name in ("alltoall", "deepep")}
    assert seconds["deepep"] < 0.75 * seconds["alltoall"]
    limited = replace(SIZES, groups=8, groups_per_token=4)
    assert exchange_seconds(H100, limited, "deepep").seconds < 0.75 * seconds["deepep"]
    one_expert = replace(SIZES, top_k=1, ranks=8)
    alltoall = exchange_seconds(H100, one_expert, "alltoall").seconds
    assert alltoall < exchange_seconds(H100, one_expert, "deepep").seconds


def test_what_limits_deepep() -> None:
    near = replace(SIZES, ranks=8)
    assert exchange_seconds(H100, replace(near, sms=4), "deepep").limit == "sms"
    assert exchange_seconds(H100, replace(near, sms=64), "deepep").limit == "links"
    assert exchange_seconds(H100, SIZES, "deepep").limit == "network"
    assert exchange_seconds(H100, SIZES, "deepep").sms == 20


@pytest.mark.parametrize("name", ["alltoall", "deepep", "hybridep"])
def test_precision_and_imbalance(name: Dispatcher) -> None:
    plain = exchange_seconds(H100, SIZES, name)
    narrow = exchange_seconds(H100, replace(SIZES, dispatch_fp8=True), name)
    assert 0.5 < narrow.dispatch_seconds / plain.dispatch_seconds < 0.56
    assert narrow.combine_seconds == plain.combine_seconds
    uneven = exchange_seconds(H100, replace(SIZES, imbalance=1.5), name)
    assert uneven.seconds / plain.seconds == pytest.approx(1.5, rel=0.03)
    assert exchange_seconds(H100, replace(SIZES, ranks=1), name).seconds == 0


def test_allgather_sends_every_token_everywhere() -> None:
    gathered = exchange_seconds(H100, SIZES, "allgather")
    assert gathered.seconds > 1.5 * exchange_seconds(H100, SIZES, "deepep").seconds
    near = replace(SIZES, ranks=2, ranks_per_domain=2)
    both = exchange_seconds(H100, near, "allgather").seconds
    assert both < exchange_seconds(H100, near, "alltoall").seconds


@pytest.mark.parametrize("name", ["alltoall", "deepep", "hybridep"])
def test_ranks_that_share_an_expert_cross_the_network_once(name: Dispatcher) -> None:
    """Four ranks an expert: what crosses the network stays, what crosses links is four-fold."""
    one = replace(SIZES, ranks=16, ranks_per_domain=2, sms=132)
    shared = exchange_seconds(H100, replace(one, expert_tp=4), name).seconds
    assert exchange_seconds(H100, one, name).seconds <= shared
    pooled = exchange_seconds(H100, replace(one, tokens=4 * one.tokens), name).seconds
    assert shared < 0.6 * pooled
    near = replace(SIZES, ranks=2, ranks_per_domain=2, sms=132)
    of_links = exchange_seconds(H100, replace(near, expert_tp=4), name).seconds
    assert of_links > 2 * exchange_seconds(H100, near, name).seconds
    alone = replace(SIZES, ranks=1, ranks_per_domain=1)
    assert exchange_seconds(H100, replace(alone, expert_tp=4), name).seconds > 0
    assert exchange_seconds(H100, alone, name).seconds == 0


def test_what_is_impossible_is_refused_by_name() -> None:
    with pytest.raises(ParallelError, match="dispatcher 'deepep': not measured on this card"):
        exchange_seconds(links_of("a100"), SIZES, "deepep")
    with pytest.raises(ParallelError, match=r"imbalance 0\.5"):
        exchange_seconds(H100, replace(SIZES, imbalance=0.5), "alltoall")
