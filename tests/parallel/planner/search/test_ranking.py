"""What becomes a row of a table, and what is counted with a row that is like it."""

from types import SimpleNamespace
from typing import Any, cast

from parallel.layout.layout import Layout
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.ranking import Front, Ranking

CARD = 100.0


def one(seconds: float, memory: float, **layout: Any) -> LayoutPrediction:
    """A prediction as far as a ranking looks at it."""
    return cast(
        LayoutPrediction,
        SimpleNamespace(
            step_seconds=seconds,
            memory=SimpleNamespace(total_bytes=memory),
            work=SimpleNamespace(layout=Layout(**layout)),
        ),
    )


def test_a_row_is_faster_or_smaller_than_all_of_its_shape() -> None:
    ranking = Ranking(3, CARD)
    fast, alike, smaller, other = (
        one(1, 80, tp=2, cp=2), one(2, 76, tp=2), one(3, 74, tp=2), one(4, 90, tp=4)
    )  # fmt: skip
    like_the_fast = one(3.5, 80, tp=2)
    beyond = one(9, 80, tp=2)
    for each in (beyond, other, alike, smaller, like_the_fast, fast):
        ranking.add(each)
    rows = ranking.rows()
    assert [row.one for row in rows] == [fast, smaller, other]
    assert [row.near for row in rows] == [[alike, like_the_fast, beyond], [], []]
    assert ranking.slowest_row == 4


def test_a_faster_layout_can_make_a_row_one_that_is_like_it() -> None:
    """Then the last row shown is slower than before, and the search has to look on."""
    ranking = Ranking(2, CARD)
    for each in (one(2, 80, tp=2), one(2.1, 70, tp=2), one(3, 80, tp=4)):
        ranking.add(each)
    assert ranking.slowest_row == 2.1
    ranking.add(one(1, 72, tp=2))
    assert ranking.slowest_row == 3


def test_what_frees_little_more_than_a_faster_one_is_behind() -> None:
    front = Front(CARD)
    assert not front.is_behind(1.0, 0.0)
    front.add(one(2, 50))
    front.add(one(3, 60))
    assert front.fastest == 2
    assert not front.is_behind(1.0, 99.0)
    assert front.is_behind(2.5, 46.0)
    assert not front.is_behind(2.5, 45.0)
