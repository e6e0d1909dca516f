"""Collectives: nccl-tests' conventions, limits, topology, and errors by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.errors import ParallelError
from parallel.hardware.card import card_names, load_card
from parallel.hardware.links import FABRICS, Links
from parallel.planner.communication_time.collectives import (
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    reduce_scatter_seconds,
    send_recv_seconds,
)

OPS = (all_gather_seconds, reduce_scatter_seconds, all_reduce_seconds, all_to_all_seconds)
GIB = 2.0**30


def links_of(name: str) -> Links:
    links = load_card(name).links
    assert links is not None
    return links


H100 = links_of("h100")


def test_long_messages_reach_the_measured_bus_bandwidths() -> None:
    """nccl_one_node.csv at 512 MiB on eight H100, GB/s."""
    num_bytes = GIB / 2
    measured = ((all_gather_seconds, 1, 335.8), (reduce_scatter_seconds, 1, 335.5),
                (all_reduce_seconds, 2, 444.9), (all_to_all_seconds, 1, 317.3))  # fmt: skip
    for op, passes, bus in measured:
        assert passes * num_bytes * 7 / 8 / op(H100, num_bytes, 8, 8) / 1e9 == pytest.approx(
            bus, rel=0.06
        )


def test_one_rank_needs_no_time() -> None:
    assert [op(H100, GIB, 1, 8) for op in OPS] == [0.0] * 4


@given(
    st.sampled_from(OPS),
    st.floats(1e3, 1e10),
    st.floats(1.01, 10),
    st.sampled_from([2, 4, 8, 16, 64, 1024]),
)
def test_more_bytes_take_longer_and_never_beat_the_links(
    op: object, num_bytes: float, factor: float, ranks: int
) -> None:
    assert callable(op)
    seconds = op(H100, num_bytes, ranks, 8)
    assert op(H100, num_bytes * factor, ranks, 8) > seconds
    # In the switch less passes than the bus bandwidth counts; elsewhere the link is a bound.
    assert seconds > 0.5 * num_bytes / ranks / 4.5e11


def test_between_nodes_all_adapters_of_a_node_carry_one_ring() -> None:
    one = all_gather_seconds(H100, GIB, 8, 1)
    eight = all_gather_seconds(H100, GIB, 64, 8)
    assert one == pytest.approx(GIB * 7 / 8 / (5e10 * 0.90), rel=0.05)
    assert eight == pytest.approx(GIB * 63 / 64 / (8 * 5e10 * 0.90), rel=0.15)
    assert all_gather_seconds(H100, GIB, 8, 8) < eight < one


def test_small_all_reduce_over_many_nodes_takes_a_tree() -> None:
    assert all_reduce_seconds(H100, 8, 1024, 1) < 2 * all_gather_seconds(H100, 8, 1024, 1) / 10


def test_a_rack_keeps_all_to_all_on_nvlink() -> None:
    gb200 = links_of("gb200")
    inside = all_to_all_seconds(gb200, GIB, 64, 64)
    assert inside < 0.25 * all_to_all_seconds(gb200, GIB, 64, 4)


def test_messages_to_one_rank() -> None:
    near = send_recv_seconds(H100, GIB, same_domain=True)
    far = send_recv_seconds(H100, GIB, same_domain=False)
    assert far == pytest.approx(GIB / 4.5e10, rel=0.05)
    assert 5 < far / near < 10


def test_another_network() -> None:
    efa = H100.with_network(fabric="efa", network_bytes_per_s=2.5e10)
    assert efa.network == FABRICS["efa"] and H100.fabric == "infiniband"
    assert all_to_all_seconds(efa, GIB, 512, 8) > 2 * all_to_all_seconds(H100, GIB, 512, 8)
    with pytest.raises(ParallelError, match="fabric 'token-ring': unknown network; choose efa"):
        H100.with_network(fabric="token-ring")
    with pytest.raises(ParallelError, match="network_bytes_per_s 0"):
        H100.with_network(network_bytes_per_s=0)


def test_what_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(ParallelError, match="links.collectives: not measured"):
        all_gather_seconds(H100.model_copy(update={"collectives": None}), GIB, 2, 2)
    with pytest.raises(ParallelError, match="num_bytes -1"):
        all_gather_seconds(H100, -1, 2, 2)
    with pytest.raises(ParallelError, match="ranks 0"):
        all_to_all_seconds(H100, 1, 0, 2)


def test_every_card_has_links_and_power() -> None:
    for name in card_names():
        card = load_card(name)
        assert card.links is not None and card.power is not None
        assert card.power.limit_watts == card.rates.board_watts, name
        assert card.links.node_size == card.power.gpus_per_node, name
        if name != "cpu":
            assert all(op(card.links, GIB, 16, 8) > 0 for op in OPS), name
