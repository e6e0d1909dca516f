"""One training run as its directory describes it: record, experiment and rows, typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from data.plain_text import printable
from parallel.measurement.measurement import Measurement

FLOP_BOUND = "an upper bound: the run counted whole rows, not their documents"
"""What limits the FLOPs of some runs recorded before documents were counted."""


@dataclass(frozen=True)
class Run:
    """A run directory's content."""

    path: Path
    record: Mapping[str, Any]
    """`record.json`."""
    experiment: Mapping[str, Any] = field(default_factory=dict)
    """`experiment.toml`; empty where it is not there."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `metrics.jsonl`, by step."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `evaluations.jsonl`: step, tokens, loss (nats/token)."""
    expert_load: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `expert_load.jsonl`: step, layers, counts."""
    routing: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `routing.jsonl`: step, layers, and one number a layer for each measure."""
    routing_maps: Mapping[str, Any] = field(default_factory=dict)
    """`routing_maps.json`: layers, sources, counts, together; empty where it is not there."""

    @property
    def name(self) -> str:
        """Name given by the user, or the directory's; safe to print, whoever wrote it."""
        return printable(str(self.record.get("name") or self.path.name))

    @property
    def run_id(self) -> str:
        """Identifier of the run: its own, or its directory's name."""
        return printable(str(self.record.get("run_id") or self.path.name))

    @property
    def ledger(self) -> Mapping[str, Any]:
        """The cost ledger (`moe cost --json`)."""
        ledger: Mapping[str, Any] = self.record["ledger"]
        return ledger

    @property
    def total_parameters(self) -> int:
        """All parameters."""
        return int(self.ledger["total_parameters"])

    @property
    def active_parameters(self) -> int:
        """Parameters used for one token."""
        return int(self.ledger["active_parameters"])

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token by the ledger's convention."""
        return float(self.ledger["training_flops_per_token"])

    @property
    def sparse(self) -> bool:
        """Whether some parameters are not used for a token."""
        if self.experiment:
            return self.num_experts is not None
        return self.total_parameters > self.active_parameters

    @property
    def num_experts(self) -> int | None:
        """Routed experts a layer; `None` for a dense model or without `experiment.toml`."""
        return (self.experiment.get("model", {}).get("moe") or {}).get("num_experts")

    @property
    def seed(self) -> int:
        """Seed of the initial weights."""
        return int(self.experiment.get("train", {}).get("seed", 0))

    @property
    def counts(self) -> Mapping[str, Any]:
        """`tokens` and `positions` trained: the record's, or those of a run that has none yet.

        A run on its way, or one that was killed, has them in its last metrics row.
        """
        if self.record.get("tokens") is not None:
            return self.record
        return self.metrics[-1] if self.metrics else {}

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return int(self.counts.get("tokens") or 0)

    @property
    def flops_per_trained_token(self) -> float:
        """Training FLOPs over the trained tokens; the ledger's where either is not known."""
        flops = self.record.get("training_flops")
        if flops is None or not self.tokens:
            return self.flops_per_token
        return float(flops) / self.tokens

    @property
    def has_flop_bound(self) -> bool:
        """Whether only an upper bound of its FLOPs is known (`FLOP_BOUND`).

        The run did not count them, and its rows hold padding, or documents that do not see each
        other.
        """
        if self.record.get("training_flops") is not None:
            return False
        data, train = (self.experiment.get(name, {}) for name in ("data", "train"))
        is_packed = bool(data.get("document_mask")) or data.get("packing") == "best_fit"
        return is_packed or train.get("mode", "pretrain") != "pretrain"

    def training_flops(self, counts: Mapping[str, Any]) -> float:
        """Return the training FLOPs behind a row, or the record.

        A run recorded before they were counted computed whole rows, which is an upper bound where
        they hold several documents or padding; one from before `positions` counted padding tokens.
        """
        if counts.get("training_flops") is not None:
            return float(counts["training_flops"])
        return float(counts.get("positions", counts["tokens"])) * self.flops_per_token

    @cached_property
    def final_loss(self) -> float | None:
        """Held-out loss at the end, nats/token."""
        if self.record.get("final_loss") is not None:
            return float(self.record["final_loss"])
        losses = [row["loss"] for row in self.evaluations if row["loss"] is not None]
        return float(losses[-1]) if losses else None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens trained per second of wall time."""
        value = self.record.get("tokens_per_s")
        return None if value is None else float(value)

    def energy(self, name: str, unit: str) -> Measurement:
        """Return one measurement of the energy section (`total`, `per_token`, ...)."""
        section = self.record.get("energy") or {}
        values = section.get(name)
        if not isinstance(values, Mapping):
            return Measurement.missing(unit, "none", "the run had no meter")
        return Measurement.from_json(values)
