"""Published results beside a report's runs: energy per token and training speed, with sources."""

import re
from collections.abc import Mapping

from benchmarks.published.rows import published_rows
from parallel.measurement.number_text import readable
from parallel.measurement.units import BILLION, JOULES_PER_MWH

# Dense BF16 peak of an H100, TFLOP/s, of which publications state their MFU.
H100_TFLOPS = 989.5


def published_energy() -> list[dict[str, str]]:
    """Return published energy per token, recomputed from each row's own joules and tokens."""
    rows = []
    for row in published_rows("training_energy"):
        joules = published_joules_per_token(row)
        active = float(row["active_parameters"])
        rows.append(
            {
                "model": row["model"],
                "active": readable(active, ""),
                "tokens": readable(float(row["tokens"]), "tokens"),
                "energy_per_token": readable(joules, "J/token"),
                "per_billion": readable(joules / active * BILLION, "J/token"),
                "method": row["method"],
                "source": row["source"],
            }
        )
    return rows


def published_joules_per_token(row: Mapping[str, str]) -> float:
    """Return the energy per token of a row of `published/training_energy.csv`, J/token."""
    return float(row["energy_mwh"]) * JOULES_PER_MWH / float(row["tokens"])


def published_speed() -> list[dict[str, str]]:
    """Return the fastest published training run of each model, precision and routing mode."""
    fastest: dict[tuple[str, ...], tuple[float, dict[str, str]]] = {}
    for row in published_rows("training_speed"):
        key = (_plain_name(row["model"]), row["precision"][:3], row["routing"])
        rate = _printed_rate(row)
        if rate is not None and rate > fastest.get(key, (0.0, {}))[0]:
            fastest[key] = rate, row
    ordered = [row for _, (_, row) in sorted(fastest.items(), key=lambda pair: pair[0])]
    return [
        {
            "model": row["model"],
            "devices": f"{row['gpus']} x {row['gpu']}",
            "layout": _published_layout(row),
            "seq_len": row["seq_len"],
            "precision": row["precision"],
            "routing": row["routing"] or "not stated",
            "flops_per_s": f"{row['tflops_per_gpu']} TFLOP/s"
            if row["tflops_per_gpu"]
            else f"{row['mfu_pct']}% MFU",
            "tokens_per_s": row["tokens_per_s_per_gpu"],
            "source": row["source"],
        }
        for row in ordered
    ]


def _printed_rate(row: Mapping[str, str]) -> float | None:
    """Return TFLOP/s per device: the first number printed, or MFU times the H100's peak."""
    for name, scale in (("tflops_per_gpu", 1.0), ("mfu_pct", H100_TFLOPS / 100)):
        if number := re.search(r"[0-9.]+", row[name]):
            return float(number[0]) * scale
    return None


def _plain_name(model: str) -> str:
    """Return a model's name without punctuation and case, in which publications differ."""
    return "".join(c for c in model.partition("(")[0].lower() if c.isalnum())


def _published_layout(row: Mapping[str, str]) -> str:
    sizes = ((name, row[name]) for name in ("tp", "pp", "vpp", "cp", "ep", "etp"))
    return " ".join(f"{name}={n}" for name, n in sizes if n not in ("", "1", "n/a")) or "dp only"
