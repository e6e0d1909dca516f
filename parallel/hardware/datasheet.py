"""Peak rates (dense, without structured sparsity) and power limits from vendors' data sheets."""

from parallel.hardware.card import find_card
from parallel.measurement.measurement import Measurement


def datasheet_peak(device_name: str | None, dtype: str) -> Measurement:
    """Return the published dense peak of a device in FLOP/s, or why it is not known."""
    if dtype != "bf16":
        return Measurement.missing("FLOP/s", "data sheet", f"no data-sheet peak kept for {dtype}")
    return _published(device_name, "bf16", "FLOP/s")


def rated_watts(device_name: str | None) -> Measurement:
    """Return the published power limit of a board in W, or why it is not known."""
    return _published(device_name, "board_watts", "W")


def _published(device_name: str | None, rate: str, unit: str) -> Measurement:
    card = None if device_name is None else find_card(device_name)
    value = None if card is None else getattr(card.rates, rate)
    if card is None or value is None:
        return Measurement.missing(unit, "data sheet", f"no data sheet kept for {device_name}")
    return Measurement(value=value, unit=unit, source=card.sources[rate], kind="published")
