"""Joules of a step from what each card does: boards, nodes, network, facility.

Boundaries nest: `boards` is what NVML counts on the cards; `nodes` adds hosts, adapters, fans and
the loss of the power supplies (AC, what MLPerf's power submissions measure); `network` is the
switches between nodes; `facility` is nodes and network times the PUE. Everything is *modelled*;
intervals hold 80%, and independent errors are added in squares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot
from typing import Literal

from parallel.errors import ParallelError
from parallel.hardware.power import LimitShare, Phase, Power

HOST_LOW, HOST_HIGH = 0.9, 1.6
"""Interval of a node's host and fans over their value. It leans upwards: the values come from node
watts less boards taken at their limit, so that they are lower bounds."""
SUPPLY_ERROR = 0.02
"""Half-width of the power supplies' efficiency: 0.94 to 0.98 among submitters."""
SWITCH_LOW, SWITCH_HIGH = 0.1, 2.0
"""Interval of the switches over their value: 11 W a GPU by the one switch that Dell measured for 64
GPUs, 116 W (64 nodes) and 251 W (8 nodes) by SMC's estimates (MLPerf v4.0 and v4.1)."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 80% interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Estimate":
        """Return it in another unit."""
        return Estimate(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def __add__(self, other: "Estimate") -> "Estimate":
        """Return the sum; errors are independent."""
        value = self.value + other.value
        below = hypot(self.value - self.low, other.value - other.low)
        above = hypot(self.high - self.value, other.high - other.value)
        return Estimate(value=value, low=value - below, high=value + above)

    def __mul__(self, other: "Estimate") -> "Estimate":
        """Return the product of positive numbers; errors are independent."""
        value = self.value * other.value
        below = hypot(1 - self.low / self.value, 1 - other.low / other.value)
        above = hypot(self.high / self.value - 1, other.high / other.value - 1)
        return Estimate(value=value, low=value * (1 - below), high=value * (1 + above))


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the cards stand."""

    pue: Estimate = Estimate(value=1.2, low=1.08, high=1.4)
    """Facility over IT energy. The default is an assumption: data centres report 1.1 to 1.4."""
    cooling: Literal["air", "liquid"] = "air"
    """With liquid the nodes' fans are left out."""
    has_network: bool = True
    """Whether switches join the nodes; a single node needs none."""


@dataclass(frozen=True, kw_only=True)
class StepEnergy:
    """Joules of one step of the whole job."""

    boards: Estimate
    nodes: Estimate
    network: Estimate
    facility: Estimate
    limit_joules: float
    """Power limit x time of all boards: what TDP x GPU-hours would say."""
    tokens: int
    """Tokens of the step."""
    assumptions: tuple[str, ...]

    def per_token(self) -> dict[str, Estimate]:
        """Return joules a token by boundary."""
        each = 1.0 / self.tokens
        return {
            "boards": self.boards.times(each),
            "nodes": self.nodes.times(each),
            "network": self.network.times(each),
            "facility": self.facility.times(each),
        }


def step_energy(
    power: Power,
    seconds: Mapping[Phase, float],
    *,
    num_gpus: int,
    tokens: int,
    site: Site | None = None,
) -> StepEnergy:
    """Return the energy of one step.

    Args:
        power: What the card and its node draw.
        seconds: Seconds of an average card by phase; they add up to the step.
        num_gpus: Cards of the job.
        tokens: Tokens of the step, all cards together.
        site: Where they stand.
    """
    site = site or Site()
    limit, phases, host = _known(power)
    bad = [f"{name} {value}" for name, value in seconds.items() if not value >= 0]
    step = sum(seconds.values())
    if bad or not 0 < step < float("inf") or set(seconds) - set(phases):
        raise ParallelError(
            f"seconds {bad or dict(seconds)}: not negative, above 0 in all, of phases "
            f"{', '.join(sorted(phases))}"
        )
    if num_gpus < 1 or tokens < 1:
        raise ParallelError(f"num_gpus {num_gpus}, tokens {tokens}: at least 1 of each")
    boards = _board_joules(phases, seconds).times(limit * num_gpus)
    gpu_seconds = step * num_gpus
    fans = (power.fan_watts or 0.0) if site.cooling == "air" else 0.0
    watts = (host + fans) / power.gpus_per_node
    hosts = Estimate(value=watts, low=HOST_LOW * watts, high=HOST_HIGH * watts).times(gpu_seconds)
    supply = power.supply_efficiency or 1.0
    loss = Estimate(
        value=1 / supply, low=(1 - SUPPLY_ERROR) / supply, high=(1 + SUPPLY_ERROR) / supply
    )
    nodes = (boards + hosts) * loss
    switches = (power.switch_watts or 0.0) * gpu_seconds if site.has_network else 0.0
    network = Estimate(value=switches, low=SWITCH_LOW * switches, high=SWITCH_HIGH * switches)
    return StepEnergy(
        boards=boards,
        nodes=nodes,
        network=network,
        facility=(nodes + network) * site.pue,
        limit_joules=limit * gpu_seconds,
        tokens=tokens,
        assumptions=_assumptions(power, site),
    )


def _known(power: Power) -> tuple[float, dict[Phase, LimitShare], float]:
    if power.limit_watts is None or power.phases is None or power.host_watts is None:
        absent = [
            name for name in ("limit_watts", "phases", "host_watts") if getattr(power, name) is None
        ]
        raise ParallelError(
            f"power.{absent[0]}: unknown for this card; give it in the card's TOML file"
        )
    return power.limit_watts, power.phases, power.host_watts


def _board_joules(phases: Mapping[Phase, LimitShare], seconds: Mapping[Phase, float]) -> Estimate:
    """Return the joules of one board with a limit of 1 W."""
    total = Estimate(value=0.0, low=0.0, high=0.0)
    for phase, duration in seconds.items():
        share = phases[phase]
        one = Estimate(value=share.typical, low=share.low, high=share.high)
        total = total + one.times(duration)
    return total


def _assumptions(power: Power, site: Site) -> tuple[str, ...]:
    said = [
        f"PUE {site.pue.value:g} ({site.pue.low:g} to {site.pue.high:g})",
        f"nodes cooled by {site.cooling}",
        "storage and failed steps are not counted",
    ]
    names = ("phases", "host_watts", "fan_watts", "supply_efficiency", "switch_watts")
    said += [f"{name}: {power.sources[name]}" for name in names if name in power.sources]
    absent = [name for name in names[2:] if getattr(power, name) is None]
    return (*said, *(f"{name}: unknown, counted as none" for name in absent))
