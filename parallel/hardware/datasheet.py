"""Peak rates (dense, without structured sparsity) and power limits from vendors' data sheets."""

from collections.abc import Mapping

from parallel.measurement.measurement import Measurement

# FLOP/s. NVIDIA's data sheets print the rate with structured sparsity; these are half of it.
_BF16_DENSE = {
    "H200": (989.5e12, "NVIDIA H200 data sheet: 1,979 TFLOP/s with sparsity"),
    "H100 PCIe": (756e12, "NVIDIA H100 data sheet: 1,513 TFLOP/s with sparsity (PCIe)"),
    "H100": (989.5e12, "NVIDIA H100 data sheet: 1,979 TFLOP/s with sparsity (SXM)"),
    "A100": (312e12, "NVIDIA A100 data sheet: 312 TFLOP/s dense"),
}

# W.
_RATED_WATTS = {
    "H200": (700.0, "NVIDIA H200 data sheet (SXM)"),
    "H100 PCIe": (350.0, "NVIDIA H100 data sheet (PCIe)"),
    "H100": (700.0, "NVIDIA H100 data sheet (SXM)"),
    "A100": (400.0, "NVIDIA A100 data sheet (SXM)"),
}


def datasheet_peak(device_name: str | None, dtype: str) -> Measurement:
    """Return the published dense peak of a device in FLOP/s, or why it is not known."""
    if dtype != "bf16":
        return Measurement.missing("FLOP/s", "data sheet", f"no data-sheet peak kept for {dtype}")
    return _lookup(_BF16_DENSE, device_name, "FLOP/s")


def rated_watts(device_name: str | None) -> Measurement:
    """Return the published power limit of a board in W, or why it is not known."""
    return _lookup(_RATED_WATTS, device_name, "W")


def _lookup(
    sheets: Mapping[str, tuple[float, str]], device_name: str | None, unit: str
) -> Measurement:
    for name, (value, source) in sheets.items():
        if device_name is not None and all(word in device_name for word in name.split()):
            return Measurement(value=value, unit=unit, source=source, kind="published")
    return Measurement.missing(unit, "data sheet", f"no data sheet kept for {device_name}")
