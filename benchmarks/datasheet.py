"""Peak rates that vendors state, dense (without structured sparsity)."""

from benchmarks.measurement import Measurement

# NVIDIA's data sheets print the rate with structured sparsity; these are half of it.
_BF16_DENSE = {
    "H200": (989.5e12, "NVIDIA H200 data sheet: 1,979 TFLOP/s with sparsity"),
    "H100 PCIe": (756e12, "NVIDIA H100 data sheet: 1,513 TFLOP/s with sparsity (PCIe)"),
    "H100": (989.5e12, "NVIDIA H100 data sheet: 1,979 TFLOP/s with sparsity (SXM)"),
    "A100": (312e12, "NVIDIA A100 data sheet: 312 TFLOP/s dense"),
}


def datasheet_peak(device_name: str | None, dtype: str) -> Measurement:
    """Return the published dense peak of a device in FLOP/s; unknown with the reason."""
    if dtype != "bf16":
        return Measurement.missing("FLOP/s", "data sheet", f"no data-sheet peak kept for {dtype}")
    for name, (rate, source) in _BF16_DENSE.items():
        if device_name is not None and all(word in device_name for word in name.split()):
            return Measurement(value=rate, unit="FLOP/s", source=source, kind="published")
    return Measurement.missing("FLOP/s", "data sheet", f"no data sheet kept for {device_name}")
