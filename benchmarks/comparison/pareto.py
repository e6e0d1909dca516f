"""The Pareto front of loss and cost: models that no other beats in both."""

from collections.abc import Sequence

from benchmarks.comparison.seed_groups import SeedGroup

# Costs for which the report shows a front, by quantity.
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
    members: list[tuple[float, float, SeedGroup]] = []
    for point in sorted(points, key=lambda point: point[:2]):
        if not members or point[1] < members[-1][1] or point[:2] == members[-1][:2]:
            members.append(point)
    return [group for _, _, group in members]
