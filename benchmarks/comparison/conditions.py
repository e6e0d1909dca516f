"""Conditions under which runs were measured: the same mandatory fields for every run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.comparison.machine import others_share
from benchmarks.footprint.footprint import assumptions, grid_intensity
from moe.runs.run import Run
from parallel.measurement.number_text import readable

NOT_RECORDED = "not recorded"


def _at(*keys: str) -> Callable[[Run], Any]:
    def find(run: Run) -> Any:
        value: Any = run.record
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    return find


def _layout(run: Run) -> str | None:
    layout = run.record.get("layout") or {}
    shown = {k: v for k, v in layout.items() if v not in (None, 1, False)}
    return " ".join(f"{k}={v}" for k, v in shown.items()) or ("one process" if layout else None)


def _commit(run: Run) -> str | None:
    git = run.record.get("git") or {}
    if not git.get("commit"):
        return None
    return f"{git['commit'][:10]}{' with changes' if git.get('dirty') else ''}"


def _versions(run: Run) -> str | None:
    environment = run.record.get("environment") or {}
    packages = environment.get("packages") or {}
    known = [f"{name} {version}" for name, version in packages.items() if version]
    return ", ".join([f"Python {environment.get('python', '?')}", *known]) if known else None


def _routing(run: Run) -> str | None:
    moe = run.experiment.get("model", {}).get("moe")
    if not run.sparse:
        return "dense model"
    if moe is None:
        return None
    forced = moe.get("forced_balance")
    return "natural" if not forced else "forced random" if forced == "random" else "forced even"


def _dispatcher(run: Run) -> Any:
    ran = _at("execution", "dispatcher")(run)
    if ran:
        return str(ran).rpartition(".")[2]
    return None if run.sparse else "none (dense model)"


def _fabric(run: Run) -> str | None:
    """Return what connects the ranks: as recorded, or derived from device and number of ranks."""
    fabric, ranks = _at("hardware", "fabric")(run), _at("hardware", "ranks")(run)
    if fabric:
        return str(fabric)
    if ranks == 1:
        return "none (one rank)"
    backends = {"cpu": "gloo", "cuda": "NCCL"}
    backend = backends.get(str(_at("hardware", "device")(run)))
    return f"{backend}; network not recorded" if backend else None


def _recomputation(run: Run) -> str | None:
    """Return what the backward pass recomputes: as recorded, or as configured."""
    ran = _at("execution", "recompute")(run)
    if ran:
        return str(ran)
    for section in ("train", "parallel", "precision"):
        asked = run.experiment.get(section, {}).get("recompute")
        if asked:
            return str(asked)
    return "none" if run.experiment else None


def _peak(run: Run) -> str | None:
    peak = run.record.get("peak") or {}
    if not peak.get("flops_per_s"):
        return None
    text = f"{readable(peak['flops_per_s'], 'FLOP/s')} ({peak.get('source', 'source not recorded')}"
    rates = peak.get("rates_flops_per_s") or []
    if len(rates) < 2:
        return f"{text}; once, before the run)"
    lowest = readable(min(rates), "FLOP/s")
    return f"{text}; highest of {len(rates)} beside the run, lowest {lowest})"


def _load(run: Run) -> str | None:
    share = others_share(run)
    if share.value is None:
        return None if share.source == "none" else f"unknown: {share.reason}"
    return f"{readable(share.value, 'share')} of the {share.boundary}"


def _meter(run: Run) -> str | None:
    energy = run.record.get("energy") or {}
    if not energy:
        return None
    parts = [energy.get("source"), energy.get("kind"), energy.get("boundary"), energy.get("note")]
    return ", ".join(str(part) for part in parts if part)


def _prices(run: Run) -> str | None:
    config, grid = assumptions(run), grid_intensity(run)
    parts = [grid[1]] if grid else []
    parts += [f"PUE {config.pue:g}"] if config.pue != 1 else []
    for value, unit in (
        (config.price_per_device_hour, f"{config.currency}/device-hour"),
        (config.price_per_kwh, f"{config.currency}/kWh"),
        (config.water_litres_per_kwh, "L/kWh"),
    ):
        parts += [f"{value:g} {unit}"] if value is not None else []
    return "; ".join(parts) or None


FIELDS: tuple[tuple[str, Callable[[Run], Any]], ...] = (
    ("Status", _at("status")),
    ("Started", _at("started_at")),
    ("Command", _at("command")),
    ("Commit", _commit),
    ("Versions", _versions),
    ("Platform", _at("environment", "platform")),
    ("Device", _at("hardware", "name")),
    ("Ranks", _at("hardware", "ranks")),
    ("Fabric", _fabric),
    ("Layout", _layout),
    ("Precision", _at("execution", "dtype")),
    ("Kernels", _at("execution", "kernels")),
    ("Dispatcher", _dispatcher),
    ("Optimizer", _at("execution", "optimizer")),
    ("Recomputation", _recomputation),
    ("Routing", _routing),
    ("Peak for MFU", _peak),
    ("Taken by other programs", _load),
    ("Energy meter", _meter),
    ("Grid and prices", _prices),
)


def conditions(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return each field with one text for each run, and which runs share each text."""
    rows = []
    for label, find in FIELDS:
        values = [NOT_RECORDED if (v := find(run)) in (None, "") else str(v) for run in runs]
        shared = {
            value: [run.name for run, own in zip(runs, values, strict=True) if own == value]
            for value in dict.fromkeys(values)
        }
        rows.append({"label": label, "texts": values, "same": len(shared) == 1, "shared": shared})
    return rows
