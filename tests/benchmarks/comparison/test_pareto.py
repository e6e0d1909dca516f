"""The Pareto front against brute force, and models that lack the cost."""

import random
from pathlib import Path

from benchmarks.comparison.pareto import pareto_front
from benchmarks.comparison.seed_groups import SeedGroup
from tests.support.seed_groups import groups_of


def test_front_against_brute_force(tmp_path: Path) -> None:
    rng = random.Random(5)
    plans = [
        {
            "name": f"m{i}",
            "sparse": False,
            "steps": 20 + i,
            "final_loss": 4 + rng.randrange(6) / 10,
            "joules": 100.0 * rng.randrange(1, 6),
        }
        for i in range(25)
    ]
    groups = groups_of(tmp_path, *plans)

    def point(group: SeedGroup) -> tuple[float, float]:
        price, loss = group.interval("energy"), group.interval("loss")
        assert price is not None
        assert loss is not None
        return price.mean, loss.mean

    def beaten(group: SeedGroup) -> bool:
        x, y = point(group)
        others = [point(other) for other in groups]
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in others)

    expected = {group.label for group in groups if not beaten(group)}
    found = pareto_front(groups, "energy")
    assert {group.label for group in found} == expected
    assert [point(group)[0] for group in found] == sorted(point(group)[0] for group in found)


def test_a_model_without_the_cost_is_not_on_its_front(tmp_path: Path) -> None:
    groups = groups_of(
        tmp_path,
        {"sparse": False, "joules": None, "final_loss": 1.0},
        {"sparse": True, "final_loss": 4.0},
    )
    assert [group.label for group in pareto_front(groups, "energy")] == ["run1"]
