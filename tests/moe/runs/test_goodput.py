"""Time allocated to starts of which one process makes several, as the demo does."""

import pytest

from moe.runs import goodput
from moe.runs.goodput import Allocation


def test_starts_in_one_process_share_its_time_and_count_none_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    age_s = 0.0
    monkeypatch.setattr(goodput, "process_age_s", lambda: age_s)
    allocation = Allocation()
    allocated = []
    for age_s in (30.0, 90.0, 100.0):  # noqa: B007 - read by the fake
        allocated.append(allocation.seconds())
        allocation.end()
    assert allocated == [30, 60, 10]
