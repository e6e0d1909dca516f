"""The cost of natural routing: pairs in turn, the slowest rank, and the table."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.bench.natural import cost
from benchmarks.bench.natural.cost import routing_cost, slowest
from benchmarks.bench.natural.layer_timer import LayerTimer
from benchmarks.bench.natural.source_text import routing_text


def test_a_layer_lasts_as_long_as_on_its_slowest_rank() -> None:
    first, second = [{0: 1.0, 1: 2.0}, {0: 3.0, 1: 1.0}], [{1: 5.0}, {1: 0.5}]
    assert slowest([first, second]) == [{0: 1.0, 1: 5.0}, {0: 3.0, 1: 1.0}]


class _Subject:
    """A trainer whose natural steps last 1.5 times as long, and layers twice; the machine slows."""

    def __init__(self) -> None:
        self.experiment = SimpleNamespace(model=SimpleNamespace(sparse_layers=[False, True]))
        self.engine = SimpleNamespace(is_main=False, device=torch.device("cpu"))
        self.order: list[str] = []

    def sparse_layers(self) -> list[Any]:
        return []

    def force_routing(self, profile: RoutingProfile, replay: object) -> None:
        self.order.append(profile.kind)

    @property
    def slowness(self) -> float:
        return float(1 + (len(self.order) - 1) // 2)

    @property
    def is_natural(self) -> bool:
        return self.order[-1] == "natural"

    def step(self) -> float:
        self.last_loads = [1.8 if self.is_natural else 1.1]
        return self.slowness * (1.5 if self.is_natural else 1.0)


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Subject]:
    made = _Subject()
    layer_s = lambda _timer: {1: made.slowness * (0.2 if made.is_natural else 0.1)}  # noqa: E731
    monkeypatch.setattr(LayerTimer, "pop", layer_s)
    monkeypatch.setattr(cost, "all_gather_objects", lambda value: [value])
    yield made


def test_ratios_are_of_pairs_that_share_the_machines_drift(subject: Any) -> None:
    found = routing_cost(subject, None, warmup=2, repeats=6)
    assert subject.order[:4] == ["forced", "natural", "natural", "forced"]
    [layer] = found["layers"]
    assert layer["layer"] == 1
    assert (layer["busiest_over_even"], layer["forced_busiest_over_even"]) == (
        pytest.approx(1.8),
        pytest.approx(1.1),
    )
    for row, ratio in ((layer, 2.0), (found["step"], 1.5)):
        interval = row["time_over_forced"]
        assert interval["repeats"] == 6  # without the two that warmed up
        # The machine became eight times slower, the pairs' ratio did not change.
        assert [interval[key] for key in ("low", "median", "high")] == pytest.approx([ratio] * 3)


def test_a_layer_is_timed_in_both_directions() -> None:
    layer = torch.nn.Module()
    layer.mlp, layer.layer_number = torch.nn.Linear(2, 2), 3
    timer = LayerTimer([layer], torch.device("cpu"))
    with timer.timing():
        layer.mlp(torch.ones(1, 2, requires_grad=True)).sum().backward()
        assert len(timer._intervals[3]) == 2
    layer.mlp(torch.ones(1, 2))
    times = timer.pop()
    assert list(times) == [2] and times[2] > 0
    assert timer.pop() == {}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (None, "untrained (recorded as natural)"),
        ({"kind": "replay", "file": "s", "recorded_layers": {"0": 2}}, "natural (s, layer 2)"),
        ({"kind": "replay", "file": "a/b", "recorded_layers": {"0": 0, "1": 1}}, "natural (a/b)"),
        ({"kind": "warmed up", "steps": 150, "steady": True}, "natural (warmed up, 150 steps)"),
        ({"kind": "warmed up", "steps": 9, "steady": False},
         "natural (warmed up, 9 steps, not steady)"),
    ],
)  # fmt: skip
def test_a_table_says_where_natural_routing_comes_from(source: Any, text: str) -> None:
    row = {"routing": "natural"} | ({} if source is None else {"routing_source": source})
    assert routing_text(row) == text
    assert routing_text({"routing": "hot:1", "routing_source": {"kind": "forced"}}) == "hot:1"
