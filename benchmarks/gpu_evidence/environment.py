"""What the machine is and whether results can be had on it; prints one JSON document.

`python -m benchmarks.gpu_evidence.environment cuda`: a process of its own, so that whoever gathers
evidence holds no memory of the card.
"""

import json
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.energy.phases.phase_meter import PhaseMeter
from benchmarks.energy.sources.selection import select_source
from benchmarks.errors import BenchmarkError
from moe.config.energy import EnergyConfig
from moe.runs.callbacks import RankContext
from parallel.hardware.probe import compute_capability, describe_device

IDLE_S = 2.0
PRODUCT_SIZE, PRODUCT_TOLERANCE = 256, 0.02
MIN_FREE_SHARE = 0.9


def describe(device_name: str) -> dict[str, Any]:
    """Return hardware, versions, the energy counter, and faults that would spoil results.

    Raises:
        BenchmarkError: There is no card.
    """
    device = torch.device(device_name)
    is_card = device.type == "cuda"
    if is_card and not torch.cuda.is_available():
        raise BenchmarkError(
            "torch finds no GPU here: run this on a machine with a card (`nvidia-smi` shows it), or"
            " rehearse it: make gpu DEVICE=cpu"
        )
    free_share = None
    if is_card:
        free, total = torch.cuda.mem_get_info(device)
        free_share = free / total
    energy = _energy(is_card)
    faults = []
    if (error := _product_error(device)) > PRODUCT_TOLERANCE:
        faults.append(f"a BF16 product differs from the CPU's by {error:.3g} of its largest value")
    if free_share is not None and free_share < MIN_FREE_SHARE:
        faults.append(f"only {free_share:.0%} of the card's memory is free: end what else uses it")
    if is_card and energy["kind"] != "measured":
        faults.append(f"no energy counter: {energy['rejected'].get('nvml')}")
    return {
        "hardware": describe_device(device) | {"ranks": 1},
        "cards": torch.cuda.device_count() if is_card else 0,
        "compute_capability": list(compute_capability()) if is_card else None,
        "cuda": torch.version.cuda if is_card else None,
        "cudnn": _cudnn() if is_card else None,
        "driver": _driver() if is_card else None,
        "free_memory_share": free_share,
        "transformer_engine": _version("transformer-engine"),
        "transformers": _version("transformers"),
        "energy": energy,
        "faults": faults,
    }


def _product_error(device: torch.device) -> float:
    """Return the largest difference of a BF16 product from the CPU's in FP32, relative."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, generator=generator) for _ in range(2))
    ours = (a.to(device, torch.bfloat16) @ b.to(device, torch.bfloat16)).float().cpu()
    expected = a @ b
    return float((ours - expected).abs().max() / expected.abs().max())


def _energy(is_card: bool) -> dict[str, Any]:
    """Return the meter that runs would get, its resolution and the idle power."""
    context = RankContext(
        run_dir=Path(),
        rank=0,
        local_rank=0,
        world_size=1,
        hostname=socket.gethostname(),
        device="cuda" if is_card else "cpu",
        gather=lambda value: [value],
    )
    chosen = select_source(EnergyConfig(), context)
    if chosen.source is None:
        return {"source": None, "kind": None, "rejected": chosen.rejected}
    info = chosen.source.info
    counts = info.kind == "measured"
    return {
        "source": info.name,
        "kind": info.kind,
        "boundary": info.boundary,
        "resolution_s": info.resolution_s if counts else None,
        "idle_watts": PhaseMeter(chosen.source).idle_watts(IDLE_S) if counts else None,
        "rejected": chosen.rejected,
    }


def _cudnn() -> int | None:
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version


def _driver() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    try:
        print(json.dumps(describe(sys.argv[1])))
    except BenchmarkError as fault:
        sys.exit(f"moe: {fault}")
