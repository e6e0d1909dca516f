"""Overlap: worked by hand, and bounds that always hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.errors import ParallelError
from parallel.planner.communication_time.overlap import (
    LayerSeconds,
    Sharing,
    bucketed_seconds,
    chunked_seconds,
    combined_pass_seconds,
    side_by_side_seconds,
)

FREE = Sharing(sms_taken=0, sms=132)
QUARTER = Sharing(sms_taken=33, sms=132)
DURATIONS = st.floats(0, 10)


def test_compute_loses_what_communication_takes() -> None:
    assert FREE.compute_rate == 1
    assert QUARTER.compute_rate == pytest.approx(0.75)
    busy = Sharing(
        sms_taken=0, sms=132, bytes_per_s=1e12, memory_bytes_per_s=4e12, memory_share=1.0
    )
    assert busy.compute_rate == pytest.approx(0.75)
    # Half of the work is limited by memory that is a quarter taken: 0.5 + 0.5 / 0.75.
    half = Sharing(
        sms_taken=0, sms=132, bytes_per_s=1e12, memory_bytes_per_s=4e12, memory_share=0.5
    )
    assert half.compute_rate == pytest.approx(6 / 7)


def test_side_by_side_by_hand() -> None:
    assert side_by_side_seconds(4, 2, FREE) == 4
    assert side_by_side_seconds(4, 2, QUARTER) == pytest.approx(4.5)
    assert side_by_side_seconds(1, 2, QUARTER) == 2


@given(DURATIONS, DURATIONS, st.integers(0, 131))
def test_between_all_hidden_and_nothing_hidden(
    compute: float, communication: float, taken: int
) -> None:
    sharing = Sharing(sms_taken=taken, sms=132)
    seconds = side_by_side_seconds(compute, communication, sharing)
    assert max(compute, communication) * (1 - 1e-9) <= seconds
    assert seconds <= (compute + communication) * (1 + 1e-9)


def test_chunks_leave_one_product_alone() -> None:
    assert chunked_seconds(2, 1, 4, FREE) == 8
    assert chunked_seconds(1, 2, 4, FREE) == 7
    assert chunked_seconds(1, 2, 1, FREE) == 1


def test_one_bucket_stays_exposed() -> None:
    assert bucketed_seconds(8, 4, 4, FREE) == pytest.approx(9)
    assert bucketed_seconds(8, 4, 1, FREE) == 12
    assert bucketed_seconds(4, 8, 4, FREE) == pytest.approx(1 + 6 + 2)


def test_combined_passes_hide_the_exchange_beside_the_other_micro_batch() -> None:
    layer = LayerSeconds(
        attention_forward=1, attention_backward=2, experts_forward=3, experts_backward=6,
        dispatch_forward=1, combine_forward=2, dispatch_backward=2, combine_backward=1,
    )  # fmt: skip
    assert combined_pass_seconds(layer, FREE) == 12
    assert combined_pass_seconds(layer, QUARTER) == pytest.approx(12 + 6 * 0.25)
    slow = LayerSeconds(
        attention_forward=1, attention_backward=2, experts_forward=3, experts_backward=6,
        dispatch_forward=5, combine_forward=5, dispatch_backward=5, combine_backward=5,
    )  # fmt: skip
    assert combined_pass_seconds(slow, FREE) == 5 + 6 + 5 + 5


def test_what_is_impossible_is_refused_by_name() -> None:
    with pytest.raises(ParallelError, match="sms_taken 132"):
        Sharing(sms_taken=132, sms=132)
    with pytest.raises(ParallelError, match="bytes_per_s 5e"):
        Sharing(sms_taken=0, sms=1, bytes_per_s=5e12, memory_bytes_per_s=4e12)
    with pytest.raises(ParallelError, match="memory_share 2"):
        Sharing(sms_taken=0, sms=1, memory_share=2)
    with pytest.raises(ParallelError, match="chunks 0"):
        chunked_seconds(1, 1, 0, FREE)
    with pytest.raises(ParallelError, match="buckets 0"):
        bucketed_seconds(1, 1, 0, FREE)
