"""Configurations beside the usual: transformers and the converted model, there and back."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from moe.convert.hugging_face import from_hub, to_hub
from moe.errors import ConfigError
from tests.support.distributed import run_ranks
from tests.support.hf_rank_jobs import all_logits
from tests.support.hf_reference_models import YARN, make_model

pytestmark = [pytest.mark.engine, pytest.mark.needs("hub")]

ROPE = ("rope_parameters", "rope_theta", "rope_scaling")
PLAIN_YARN = {key: YARN[key] for key in ("rope_type", "rope_theta", "factor")} | {
    "original_max_position_embeddings": 16
}
EVERYWHERE = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 0}


@dataclass(frozen=True)
class Case:
    kind: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Of transformers' configuration before it is saved."""
    put: dict[str, Any] = field(default_factory=dict)
    """Keys written into the saved file."""
    drop: tuple[str, ...] = ()


CASES = {
    "no rope: theta 1e6": Case("mixtral", drop=ROPE),
    "no rope: YaRN x32": Case("gpt_oss", drop=ROPE),
    "null rope of transformers 5: YaRN x32": Case("gpt_oss", put={"rope_scaling": None}, drop=ROPE),
    "no scaling": Case("gpt_oss", {"rope_parameters": {"rope_type": "default"}}),
    "no windows": Case("gpt_oss", {"layer_types": ["full_attention"] * 3}),
    "no routed scale: 2.5": Case("deepseek_v3", drop=("routed_scaling_factor",)),
    "no partial rotary factor: half": Case("glm4_moe", drop=(*ROPE, "partial_rotary_factor")),
    "latent norms, V2": Case("deepseek_v2", {"rms_norm_eps": 1e-2}),
    "latent norms, V3": Case("deepseek_v3", {"rms_norm_eps": 1e-2}),
    "wide values": Case("deepseek_v3", {"v_head_dim": 24}),
    "odd sizes of experts": Case("qwen3_moe", {"moe_intermediate_size": 9}),
    "no shared experts": Case("deepseek_v3", {"n_shared_experts": 0}),
    "scaling by hand": Case("llama", put={"rope_scaling": PLAIN_YARN}),
    "scaling by hand, theta beside it": Case(
        "llama", put={"rope_theta": 500.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
    ),
    "original length beside the table": Case("llama", put={"original_max_position_embeddings": 8}),
    "attention factor": Case(
        "mixtral", {"head_dim": 8, "rope_parameters": PLAIN_YARN | {"attention_factor": 2.0}}
    ),
    "attention factor, latent": Case(
        "deepseek_v3",
        {"rope_parameters": PLAIN_YARN | {"attention_factor": 1.7, "mscale_all_dim": 0.8}},
    ),
    "head size": Case("qwen2_moe", {"head_dim": 12}),
    "no bias": Case("qwen2_moe", {"qkv_bias": False}),
    "windows everywhere": Case("qwen3", EVERYWHERE),
    "windows everywhere, sparse": Case("qwen3_moe", EVERYWHERE),
    "windows alternate": Case("qwen2_moe", EVERYWHERE | {"max_window_layers": 3}),
    "groups": Case("dots1", {"n_group": 2, "topk_group": 1, "routed_scaling_factor": 1.5}),
    "YaRN, latent": Case(
        "glm4_moe_lite", {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.8}}
    ),
    "all layers sparse": Case("glm4_moe_lite", {"mlp_layer_types": ["sparse"] * 3}),
    "YaRN of half a head": Case("minimax_m2", {"rope_parameters": PLAIN_YARN}),
}
Logits = dict[str, np.ndarray[Any, Any]]


def make(case: Case, folder: Path) -> Any:
    model = make_model(case.kind, folder, **case.changes)
    edit(folder, lambda values: [values.pop(key, None) for key in case.drop])
    edit(folder, lambda values: values.update(case.put))
    return model


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "config.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def tokens() -> torch.Tensor:
    return torch.randint(0, 96, (1, 96), generator=torch.Generator().manual_seed(4))


def loaded_logits(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    # The grouped one wants sizes in multiples of 16 bytes.
    model.config._experts_implementation = "eager"
    with torch.no_grad():
        return model(tokens()).logits.numpy()


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Logits, Logits, Logits]:
    """Logits of transformers, of ours, and of transformers after there and back."""
    folder = tmp_path_factory.mktemp("logits")
    before, after, checkpoints = {}, {}, {}
    for number, (name, case) in enumerate(CASES.items()):
        hub, back = folder / f"{number}-hub", folder / f"{number}-back"
        make(case, hub)
        checkpoints[name] = folder / f"{number}-ours"
        before[name] = loaded_logits(hub)
        from_hub(hub, checkpoints[name])
        assert to_hub(checkpoints[name], back).family == case.kind
        after[name] = loaded_logits(back)
        old, new = (load_file(path / "model.safetensors") for path in (hub, back))
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
    return before, run_ranks(1, all_logits, checkpoints, {}, tokens())[0], after


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", CASES)
def test_the_logits_are_those_of_transformers(
    name: str, logits: tuple[Logits, Logits, Logits]
) -> None:
    before, ours, after = (part[name] for part in logits)
    assert before.std() > 0.3
    assert np.abs(ours - before).max() < 1e-5
    assert np.abs(after - before).max() < 1e-5


V4 = {"transformers_version": "4.57.1"}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("gpt_oss", put={"rope_scaling": None} | V4, drop=ROPE), "rope_scaling = null is no"),
        (
            Case("llama", put={"original_max_position_embeddings": 8} | V4),
            "original_max_position_embeddings = 8 counts for transformers 5, 32 for 4",
        ),
        (
            Case(
                "deepseek_v3",
                put={
                    "rope_scaling": {
                        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "mscale_all_dim": 0.8,
                    }
                },
            ),
            "mscale_all_dim = 0.8 cannot be converted: with llama3",
        ),
        (
            Case("qwen2_moe", EVERYWHERE, drop=("layer_types",)),
            "layer_types is missing: of use_sliding_window = true transformers 4 and 5",
        ),
        (Case("qwen3", EVERYWHERE | {"max_window_layers": 1}), "give no repeated pattern"),
        (Case("deepseek_v3", drop=("n_group", "topk_group")), "n_group = 8, topk_group = 4"),
        (Case("deepseek_v3", put={"rope_interleave": None}), "rope_interleave = None cannot"),
    ],
)  # fmt: skip
def test_what_two_versions_read_differently_is_refused(
    case: Case, message: str, tmp_path: Path
) -> None:
    make(case, tmp_path / "hub")
    with pytest.raises(ConfigError, match=message):
        from_hub(tmp_path / "hub", tmp_path / "out")


def test_kimi_k2_goes_back_as_deepseek_v3_and_16_bits_leave_its_router(tmp_path: Path) -> None:
    make(Case("deepseek_v3", put={"model_type": "kimi_k2"}), tmp_path / "hub")
    from_hub(tmp_path / "hub", tmp_path / "ours")
    done = to_hub(tmp_path / "ours", tmp_path / "back", dtype="BF16")
    assert done.family == "deepseek_v3"
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("hub", "back"))
    kept = {name for name, tensor in after.items() if tensor.dtype == torch.float32}
    ends = ("mlp.gate.weight", "mlp.gate.e_score_correction_bias")
    assert kept == {name for name in after if name.endswith(ends)}
    assert len(kept) == 4
    assert all(torch.equal(before[name], after[name]) for name in kept)
