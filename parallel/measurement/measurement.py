"""A number with its unit, source, boundary and kind, which stay with it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from parallel.measurement.number_text import readable

Kind = Literal["measured", "modelled", "published"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One quantity; a value that is not known is `None` with a reason."""

    value: float | None
    unit: str
    source: str
    """What the number comes from: a meter's name, a model, a publication."""
    boundary: str | None = None
    """What the number covers: GPU board, CPU packages, node, facility."""
    kind: Kind | None = None
    """How it was obtained; `None` where there is no value."""
    uncertainty: float | None = None
    """Half-width in `unit`; `None` where it is not known."""
    reason: str | None = None
    """Why `value` is `None`, or what limits it."""

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError(f"a missing {self.unit} needs its reason")
        if self.value is not None and self.kind is None:
            raise ValueError(f"{self.value} {self.unit}: measured, modelled or published?")

    @classmethod
    def missing(cls, unit: str, source: str, reason: str) -> Self:
        """Return a quantity that is not known, with the reason."""
        return cls(value=None, unit=unit, source=source, reason=reason)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned; unknown keys are ignored."""
        known: dict[str, Any] = {name: values.get(name) for name in cls.__dataclass_fields__}
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, one key for each field."""
        return asdict(self)

    def over(self, divisor: float, unit: str) -> "Measurement":
        """Return this quantity divided by `divisor`, in `unit` (`J` over tokens: `J/token`)."""
        if self.value is None:
            return Measurement.missing(unit, self.source, self.reason or "")
        if divisor <= 0:
            return Measurement.missing(unit, self.source, "nothing to divide by")
        half_width = None if self.uncertainty is None else self.uncertainty / divisor
        changes = {"value": self.value / divisor, "unit": unit, "uncertainty": half_width}
        return Measurement(**{**asdict(self), **changes})


def comparable(measurements: Sequence[Measurement]) -> bool:
    """Return whether all known values have the same kind, source and boundary."""
    known = [m for m in measurements if m.value is not None]
    return len({(m.kind, m.source, m.boundary) for m in known}) <= 1


def measurement_text(measurement: Measurement) -> str:
    """Return a measurement with half-width and kind as text, or why it is not known."""
    if measurement.value is None:
        return f"unknown: {measurement.reason}"
    text = readable(measurement.value, measurement.unit)
    if measurement.uncertainty:
        text += f" ± {readable(measurement.uncertainty, measurement.unit)}"
    return f"{text} {measurement.kind}"
