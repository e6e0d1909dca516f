"""Which devices of a power log cover one another: they must not be summed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

# Names for a whole, and for all of it: the rest of its log is inside (Cray's pm_counters: the
# node's power includes the accelerators').
WHOLES = frozenset(
    {"node", "machine", "server", "host", "system", "total", "sum", "all", "blade", "chassis",
     "rack"}
)  # fmt: skip
# So many samples alike, of so many values, are no chance.
MIN_ALIKE, MIN_VALUES = 10, 5

Samples = Sequence[tuple[float, float]]


def covering(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two devices of which the first covers the second, by their names; or `None`.

    `node` covers `accel0`, and `nid1/node` covers `nid1/accel0`; `node1` and `node2` are two.
    """
    parsed = {name: _place_and_word(name) for name in names if name}
    for name, (place, word) in parsed.items():
        if word not in WHOLES:
            continue
        for other, (other_place, other_word) in parsed.items():
            if other_place == place and other_word != word:
                return name, other
    return None


def _place_and_word(name: str) -> tuple[str, str]:
    *place, word = re.split(r"[/.:_ -]", name.lower().rstrip("0123456789").rstrip("/.:_ -"))
    return "/".join(place), word


def alike(devices: Mapping[str, Samples]) -> list[tuple[str, str]]:
    """Return pairs of devices whose samples are all the same: perhaps one sensor, logged twice."""
    return [
        (one, other)
        for (one, samples), (other, others) in combinations(devices.items(), 2)
        if len(samples) >= MIN_ALIKE
        and samples == others
        and len({watts for _, watts in samples}) >= MIN_VALUES
    ]
