"""Samples of attention_train.csv, attention_fwd.csv and attention_mla_fwd.csv, all in BF16."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from parallel.hardware.card import Card
from parallel.planner.calibration.gemm_table import BURST_REPETITIONS
from parallel.planner.calibration.samples import Sample, Terms, read_rows
from parallel.planner.compute_time.attention import AttentionShape, attention_seconds
from parallel.planner.compute_time.memory_bound import stream_seconds

TRAIN_SIZES = (
    "gpu",
    "backend",
    "pass",
    "mask",
    "batch",
    "seq",
    "heads",
    "kv_heads",
    "dim_qk",
    "dim_v",
    "window",
)
PREFILL_SIZES = ("batch", "seq", "heads", "kv_heads", "head_dim")
LATENT_SIZES = ("batch", "seq", "heads")
_LATENT_QK_DIM, _LATENT_V_DIM = 192, 128
_TRAIN_WEIGHT = 3.0
"""The few rows of training kernels against the many of inference engines' ones."""
_NO_KERNEL_DIM = 192
"""Head size for which the engines fall back to slow kernels on Blackwell."""


def training_attention_samples(
    folder: Path, card_name: str, *, held_out: bool, backward: bool
) -> list[Sample]:
    """Return the samples of training kernels of one pass; backward without determinism."""
    samples = []
    rows = read_rows(folder / "attention_train.csv", TRAIN_SIZES, held_out=held_out)
    for row in rows:
        if row["gpu"].lower() != card_name or row["dtype"] != "bfloat16":
            continue
        if (row["pass"] == "bwd") != backward or row["deterministic"] == "True":
            continue
        shape = AttentionShape(
            batch=int(row["batch"]),
            seq=int(row["seq"]),
            heads=int(row["heads"]),
            kv_heads=int(row["kv_heads"]),
            qk_dim=int(row["dim_qk"]),
            v_dim=int(row["dim_v"]),
            causal=row["mask"] == "causal",
            window=int(row["window"]) if row["window"] else None,
        )
        samples.append(
            Sample(
                group=f"attention {'backward' if backward else 'forward'}",
                seconds=float(row["us"]) * 1e-6,
                predict=partial(_trained, shape, backward),
                weight=_TRAIN_WEIGHT,
            )
        )
    return samples


def _trained(shape: AttentionShape, backward: bool, card: Card, terms: Terms) -> float:
    seconds = attention_seconds(card, shape, backward=backward, repetitions=BURST_REPETITIONS)
    return terms["training.factor"] * seconds


def prefill_attention_samples(folder: Path, card_name: str, *, held_out: bool) -> list[Sample]:
    """Return the samples of inference engines' kernels, which write keys and values as well."""
    samples = []
    blackwell = card_name in ("b200", "gb200")
    for row in read_rows(folder / "attention_fwd.csv", PREFILL_SIZES, held_out=held_out):
        dim = int(row["head_dim"])
        if blackwell and dim == _NO_KERNEL_DIM:
            continue
        shape = _causal(row, int(row["kv_heads"]), dim, dim)
        samples += _engine_samples(row, f"{card_name}_us", "prefill burst", shape)
        samples += _engine_samples(row, f"{card_name}_sustained_us", "prefill sustained", shape)
    for row in read_rows(folder / "attention_mla_fwd.csv", LATENT_SIZES, held_out=held_out):
        shape = _causal(row, int(row["heads"]), _LATENT_QK_DIM, _LATENT_V_DIM)
        samples += _engine_samples(row, f"{card_name}_us", "prefill latent", shape)
    return samples


def _causal(row: Mapping[str, str], kv_heads: int, qk_dim: int, v_dim: int) -> AttentionShape:
    return AttentionShape(
        batch=int(row["batch"]),
        seq=int(row["seq"]),
        heads=int(row["heads"]),
        kv_heads=kv_heads,
        qk_dim=qk_dim,
        v_dim=v_dim,
    )


def _engine_samples(
    row: Mapping[str, str], column: str, engine: str, shape: AttentionShape
) -> list[Sample]:
    if not row.get(column):
        return []
    seconds = float(row[column]) * 1e-6
    return [
        Sample(
            group=f"attention {engine}", seconds=seconds, predict=partial(_filled, shape, engine)
        )
    ]


def _filled(shape: AttentionShape, engine: str, card: Card, terms: Terms) -> float:
    repetitions = None if engine == "prefill sustained" else BURST_REPETITIONS
    written = 4.0 * shape.batch * shape.seq * shape.kv_heads * (shape.qk_dim + shape.v_dim)
    kernel_s = attention_seconds(card, shape, repetitions=repetitions)
    return terms[f"{engine}.factor"] * (kernel_s + stream_seconds(card, written))
