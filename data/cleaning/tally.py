"""Counts and histograms of what cleaning did."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """Counts of a work unit or of a complete build; tallies can be added."""

    counts: Counter[str] = field(default_factory=Counter)
    """`read`, `dropped.REASON`, `changed.STEP`, `found.KIND`, `language.CODE`: documents or
    findings; `bytes`: UTF-8 bytes of the text that passed."""
    histograms: dict[str, Counter[str]] = field(default_factory=dict)
    """Of documents that passed cleaning, by lower bin edge."""

    def add_to_histogram(self, name: str, edge: float) -> None:
        """Count one document in the bin whose lower edge is `edge`."""
        self.histograms.setdefault(name, Counter())[str(edge)] += 1

    def update(self, other: "Tally") -> None:
        """Add another tally's counts."""
        self.counts.update(other.counts)
        for name, bins in other.histograms.items():
            self.histograms.setdefault(name, Counter()).update(bins)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, sorted by name."""
        histograms = {
            name: dict(sorted(bins.items(), key=lambda item: float(item[0])))
            for name, bins in sorted(self.histograms.items())
        }
        return {"counts": dict(sorted(self.counts.items())), "histograms": histograms}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Tally":
        """Restore a tally from what `to_json` returned."""
        histograms = {name: Counter(bins) for name, bins in values["histograms"].items()}
        return cls(Counter(values["counts"]), histograms)
