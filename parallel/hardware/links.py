"""How a card is linked to others: the `[links]` section of its file.

Rates are bytes/s of one card in one direction. A *domain* is the set of cards that reach each other
without a network (NVLink, Infinity Fabric). The fitted parameters belong to the formulas of
`parallel/planner/communication_time/`.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from parallel.errors import ParallelError
from parallel.frozen_model import FrozenModel

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]


class CollectiveParameters(FrozenModel):
    """One kind of collective inside a domain; fitted on nccl_one_node.csv."""

    efficiency: Positive
    """Rate that long messages approach over the link's rate; above 1 where the switch adds up
    numbers, so that fewer bytes pass than nccl-tests' bus bandwidth counts."""
    launch_seconds: NotNegative
    """Seconds of an empty collective: launch and first synchronisation."""
    rank_seconds: NotNegative
    """Seconds that each further rank adds to it."""
    fill_seconds: NotNegative
    """Time constant f of filling the pipeline: sqrt(f x transfer time) is added."""
    local_copy: NotNegative
    """Weight of the rank's own part, which is only copied, against a byte that is sent."""


class Collectives(FrozenModel):
    """The four kinds that are told apart."""

    gather: CollectiveParameters
    """All-gather and reduce-scatter."""
    all_reduce: CollectiveParameters
    """All-reduce by rings or trees."""
    switch_reduce: CollectiveParameters | None = None
    """All-reduce in the switch (NVLS); absent: the switch does not add."""
    all_to_all: CollectiveParameters
    """All-to-all, and point-to-point transfers."""


class ExchangeParameters(FrozenModel):
    """DeepEP's kernel of one direction; fitted on deepep_normal.csv."""

    launch_seconds: NotNegative
    """Seconds of an exchange without tokens."""
    token_seconds: NotNegative
    """Seconds of one SM for each token that a rank has."""
    copy_seconds: NotNegative
    """Seconds of one SM for each copy of a token to a rank of the domain."""
    byte_seconds: NotNegative
    """Seconds of one SM for each byte of such a copy."""
    node_byte_seconds: NotNegative
    """Seconds of one SM for each byte sent to a domain (with more than one domain)."""
    efficiency: Share
    """Share of the domain's link rate that many SMs reach."""


class Exchanges(FrozenModel):
    """The two directions of an expert exchange by DeepEP."""

    dispatch: ExchangeParameters
    combine: ExchangeParameters


class Fabric(FrozenModel):
    """What a network between domains reaches of its line rate."""

    collective_efficiency: Share
    """Share that NCCL reaches with long messages."""
    one_sided_efficiency: Share
    """Share that DeepEP reaches with transfers of its own."""
    latency_seconds: Positive
    """Seconds of one hop between domains."""
    spread_loss: Annotated[float, Field(ge=0, lt=1)]
    """Share of the rate that is lost with each doubling of the domains beyond two."""


FABRICS: dict[str, Fabric] = {
    # NCCL: all-to-all 41 to 45 GB/s of 50 (arXiv:2603.07685 table 7); DeepEP: 45 to 48
    # (deepep_normal.csv, four nodes). The latency is an assumption.
    "infiniband": Fabric(
        collective_efficiency=0.90,
        one_sided_efficiency=0.94,
        latency_seconds=5e-6,
        spread_loss=0.0,
    ),
    # machine_points.csv, AWS: NCCL 42 to 45 GB/s of 50 (H100), 96 to 72 of 100 over 2 to 32 nodes
    # (B300); DeepEP over NVSHMEM 33 to 35 and 53 to 74. The latency is an assumption.
    "efa": Fabric(
        collective_efficiency=0.93,
        one_sided_efficiency=0.70,
        latency_seconds=15e-6,
        spread_loss=0.06,
    ),
    # No measurement at hand: InfiniBand's shares.
    "roce": Fabric(
        collective_efficiency=0.90,
        one_sided_efficiency=0.94,
        latency_seconds=6e-6,
        spread_loss=0.0,
    ),
    # Sockets on one host (gloo): no measurement at hand.
    "ethernet": Fabric(
        collective_efficiency=0.8,
        one_sided_efficiency=0.8,
        latency_seconds=5e-5,
        spread_loss=0.0,
    ),
}


class Links(FrozenModel):
    """The links of one card."""

    domain_size: Count
    """Cards of a domain: 8 in an HGX node, 72 in an NVL72 rack."""
    node_size: Count
    """Cards of a node; what shares a host and its power."""
    domain_bytes_per_s: Positive | None = None
    """Rate inside the domain, a direction of one card; absent: unknown."""
    switch_reduces: bool
    """Whether the domain's switch adds numbers (NVLS, with all cards of a node)."""
    network_bytes_per_s: Positive | None = None
    """Line rate of one card's network adapter, a direction; absent: unknown."""
    rails: Count
    """Network adapters of a node, each on a switch of its own."""
    fabric: str
    """Network between domains: a key of `FABRICS`."""
    hop_seconds: NotNegative | None = None
    """Seconds of one hop between domains, as measured; absent: the fabric's."""
    collective_sms: Count
    """SMs (compute units, cores) that a collective holds while it runs."""
    collectives: Collectives | None = None
    """Fitted parameters; absent: no table and no relative."""
    exchanges: Exchanges | None = None
    """DeepEP's fitted parameters; absent: it does not run there, or no table and no relative."""
    fitted_on: str
    """Card whose tables the parameters come from; empty: none."""
    sources: dict[str, str]
    """Where each number comes from."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fabric not in FABRICS:
            raise ValueError(f"fabric {self.fabric!r}: choose {', '.join(sorted(FABRICS))}")
        silent = {"fabric", "fitted_on", "sources"}
        known = {name for name, value in self if value is not None} - silent
        missing = known - set(self.sources)
        if missing:
            raise ValueError(f"[links.sources] says nothing of {', '.join(sorted(missing))}")
        return self

    @property
    def network(self) -> Fabric:
        """What the network reaches."""
        fabric = FABRICS[self.fabric]
        if self.hop_seconds is None:
            return fabric
        return fabric.model_copy(update={"latency_seconds": self.hop_seconds})

    def with_network(
        self, *, fabric: str | None = None, network_bytes_per_s: float | None = None
    ) -> Self:
        """Return the links over another network between the domains."""
        if fabric is not None and fabric not in FABRICS:
            raise ParallelError(
                f"fabric {fabric!r}: unknown network; choose {', '.join(sorted(FABRICS))}"
            )
        if network_bytes_per_s is not None and not 0 < network_bytes_per_s < float("inf"):
            raise ParallelError(
                f"network_bytes_per_s {network_bytes_per_s}: not a rate; give bytes/s of one card "
                "in one direction, 5e10 for 400 Gb/s"
            )
        changes: dict[str, object] = {}
        if fabric is not None:
            changes |= {"fabric": fabric, "hop_seconds": None}
        if network_bytes_per_s is not None:
            changes["network_bytes_per_s"] = network_bytes_per_s
        return self.model_copy(update=changes)
