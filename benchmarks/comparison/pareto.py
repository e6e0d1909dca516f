"""Which models no other one beats in loss and in cost at once."""

from collections.abc import Sequence

from benchmarks.comparison.seed_groups import SeedGroup

# Costs against which loss is weighed.
PARETO_COSTS = ("training_flops", "energy", "money", "device_hours", "training_state_bytes")


def pareto_front(groups: Sequence[SeedGroup], cost: str) -> list[SeedGroup]:
    """Return the groups on the front of `cost` and held-out loss, cheapest first.

    A group is on the front if no other has a lower or equal value in both and a lower one in
    either. Groups that lack one of the two are left out.
    """
    points: list[tuple[float, float, SeedGroup]] = []
    for group in groups:
        price, loss = group.interval(cost), group.interval("loss")
        if price is not None and loss is not None:
            points.append((price.mean, loss.mean, group))
    kept: list[tuple[float, float, SeedGroup]] = []
    for point in sorted(points, key=lambda point: point[:2]):
        if not kept or point[1] < kept[-1][1] or point[:2] == kept[-1][:2]:
            kept.append(point)
    return [group for _, _, group in kept]
