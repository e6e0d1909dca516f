"""Published peak memory as jobs of the planner: an excerpt of shared/reference/published_speed.csv.

All its rows that print a peak, one for each measurement; the batch does not change it. What a row
does not print comes from the public recipe that is named here, never from its peak.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe.config.experiment import load_model
from moe.config.model import ModelConfig
from moe.cost.model_shape import shape_of
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.layout.placement import place
from parallel.layout.validation import layout_faults
from parallel.planner.memory import peak_memory
from parallel.planner.software import Software, StateBytes
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision

ROWS = Path(__file__).parents[1] / "moe" / "cost" / "published_memory.csv"
GIB = 2**30
DEEPSEEK_V2: dict[str, Any] = {
    "num_layers": 60, "hidden_size": 5120, "num_heads": 128, "ffn_hidden_size": 12288,
    "vocab_size": 102400, "max_seq_len": 163840,
    "mla": {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64, "v_head_dim": 128},
    "moe": {"num_experts": 160, "top_k": 6, "expert_ffn_hidden_size": 1536,
            "shared_expert_ffn_hidden_size": 3072, "first_dense_layers": 1},
}  # fmt: skip
"""huggingface.co/deepseek-ai/DeepSeek-V2 config.json."""
BF16_GRADIENTS = StateBytes(gradient=2)
"""Megatron-Bridge's benchmark recipes: `_perf_precision` in perf_recipes/qwen/common.py,
`set_llama3_common_peft_configs` in scripts/performance/configs/llama/llama3_llm_finetune.py."""
STATES = {
    "llama3-70b": BF16_GRADIENTS,
    "qwen3-30b-a3b": BF16_GRADIENTS,
    # recipes/moonlight/moonlight_16b.py: precision-aware optimizer, BF16 moments and gradients; the
    # masters' remainders by megatron-core's default.
    "moonlight-16b-a3b": StateBytes(gradient=2, master=2, moments=4),
}


NATURAL_ROUTING = ("moonlight-16b-a3b",)
"""Experts' load was not forced to be even, nor printed: predictions are for even load."""


@dataclass(frozen=True, kw_only=True)
class PublishedPeak:
    """One row."""

    name: str
    published_gib: float
    natural_routing: bool
    predicted_gib: float | None
    reason: str | None
    """Why it is not predicted."""

    @property
    def error(self) -> float:
        """Predicted over published, less one."""
        assert self.predicted_gib is not None
        return self.predicted_gib / self.published_gib - 1


def published_peaks() -> list[PublishedPeak]:
    """Predict every row that can be."""
    with ROWS.open() as file:
        return [_peak(row) for row in csv.DictReader(file)]


def _peak(row: dict[str, str]) -> PublishedPeak:
    sizes = " ".join(f"{key}{row[key]}" for key in ("tp", "pp", "vpp", "cp", "ep") if row[key])
    depth = f" {row['num_layers']}L" if row["num_layers"] else ""
    name = f"{row['model']}{depth} {row['gpus']}x{row['gpu']} {sizes} s{row['seq_len'] or '?'}"
    reason = _reason(row)
    return PublishedPeak(
        name=f"{name} {row['precision']} {row['recompute'] or '?'}",
        published_gib=float(row["peak_memory_gib"]),
        natural_routing=row["model"] in NATURAL_ROUTING,
        predicted_gib=None if reason else _predicted_bytes(row) / GIB,
        reason=reason,
    )


def _reason(row: dict[str, str]) -> str | None:
    if row["model"].startswith("nemotron"):
        return "has state-space layers, which the model does not know"
    if not (row["tp"] and row["seq_len"]):
        return "layout not printed"
    if row["sharding"] == "fsdp":
        return "parameters and gradients sharded too: no layout of ours"
    return None


def _predicted_bytes(row: dict[str, str]) -> int:
    batch = BatchSize(
        seq_len=int(row["seq_len"]),
        micro_batch_size=int(row["mbs"]),
        global_batch_size=int(row["gbs"]),
    )
    recompute = row["recompute"]
    named = {"recompute": "selective", "recompute_modules": tuple(recompute.split(","))}
    layout = Layout(
        **{key: int(row[key]) for key in ("tp", "pp", "vpp", "cp", "ep")},
        overlap_experts=row["ep_overlap"] == "on",
        **({} if recompute == "none" else named),
    )
    shape = shape_of(_model(row))
    assert layout_faults(layout, shape, batch, int(row["gpus"])) == []
    in_fp8 = row["precision"] == "fp8-current"
    work = Workload(
        shape=shape,
        placement=place(layout, int(row["gpus"])),
        batch=batch,
        precision=Precision(
            kernels="te",
            dtype="bf16",
            # bf16_with_fp8_current_scaling_mixed: parameters in FP8.
            **({"fp8": "current", "fp8_parameters": True} if in_fp8 else {}),
        ),
    )
    # set_llama3_common_peft_configs: disable_parameter_transpose_cache.
    software = Software(logits="fused", fused_weight_gradients=True, fp8_transposes=not in_fp8)
    is_nvidias = "SimuMax" not in row["source"]
    state = STATES[row["model"]] if is_nvidias else StateBytes()
    return peak_memory(work, state=state, software=software).total_bytes


def _model(row: dict[str, str]) -> ModelConfig:
    model = (
        ModelConfig.model_validate(DEEPSEEK_V2)
        if row["model"] == "deepseek-v2"
        else load_model(row["model"])
    )
    changes: dict[str, Any] = {
        key: int(row[key]) for key in ("num_layers", "mtp_layers") if row[key]
    }
    if "16 key-value heads" in row["notes"]:
        changes["num_kv_heads"] = 16
    if model.moe is not None and row["routing"] == "capacity":
        changes["moe"] = model.moe.model_copy(update={"capacity_factor": 1.0})
    return model.model_copy(update=changes)
