"""The cost ledger: published figures, hand-worked cases, exact sums, invariants."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe.config.experiment import load_model
from moe.config.model import MlaConfig, ModelConfig, MoeConfig
from moe.config.presets.catalog import preset_names
from moe.cost.ledger import Ledger, ledger

DENSE: dict[str, Any] = {
    "num_layers": 2, "hidden_size": 8, "num_heads": 4, "num_kv_heads": 2, "head_dim": 3,
    "ffn_hidden_size": 20, "vocab_size": 11, "max_seq_len": 16,
}  # fmt: skip
SPARSE = DENSE | {"moe": MoeConfig(num_experts=4, top_k=2, expert_ffn_hidden_size=5)}
MLA = MlaConfig(kv_lora_rank=6, qk_nope_head_dim=4, qk_rope_head_dim=2, v_head_dim=5)
MLA_BASE = {
    key: value for key, value in SPARSE.items() if key not in {"num_kv_heads", "head_dim"}
} | {"mla": MLA}


def parts(model: ModelConfig, seq_len: int = 16) -> dict[str, Any]:
    return {part.name: part for part in ledger(model, seq_len).components}


@pytest.mark.parametrize(
    ("preset", "seq_len", "published_gflop"),
    [
        ("llama3-8b", 8192, 51.48),
        ("llama3-70b", 8192, 449.20),
        ("qwen3-30b-a3b", 4096, 23.01),
        ("deepseek-v3", 4096, 259.97),
    ],
)
def test_flops_reproduce_nvidias_ratio_of_tflops_to_tokens(
    preset: str, seq_len: int, published_gflop: float
) -> None:
    flops = ledger(load_model(preset), seq_len).training_flops_per_token
    assert flops / 1e9 == pytest.approx(published_gflop, rel=1e-3)


def test_dense_model_worked_by_hand() -> None:
    model = ModelConfig(**DENSE)
    found = parts(model)
    assert found["input embedding"].parameters == 11 * 8
    # A layer: queries 8*12, keys and values 2 * 8*6, output 12*8.
    assert found["attention"].parameters == 2 * (96 + 96 + 96)
    assert found["norms"].parameters == 2 * 2 * 8 + 8
    assert found["dense FFN"].parameters == 2 * 3 * 8 * 20
    assert found["LM head"].parameters == 11 * 8
    # Causal: a token sees 8 of 16 positions; 4 heads, 2 products of 3 dims, 2 FLOPs, times 3.
    assert found["attention"].training_flops_per_token == 6 * 576 + 2 * (3 * 2 * 2 * 4 * 3 * 8)
    assert found["LM head"].training_flops_per_token == 6 * 88
    assert found["input embedding"].training_flops_per_token == 0


def test_sparse_layer_counts_top_k_of_the_experts_as_active() -> None:
    found = parts(ModelConfig(**SPARSE))
    assert found["routed experts"].parameters == 2 * 4 * 3 * 8 * 5
    assert found["routed experts"].active_parameters == 2 * 2 * 3 * 8 * 5
    assert found["router"].parameters == 2 * 4 * 8
    assert found["router"].training_flops_per_token == 0


def test_latent_attention_worked_by_hand() -> None:
    model = ModelConfig(**MLA_BASE)
    down, up, out = 8 * (6 + 2), 6 * 4 * (4 + 5), 4 * 5 * 8
    direct = 8 * 4 * 6
    assert parts(model)["attention"].parameters == 2 * (direct + down + up + out)
    assert parts(model)["norms"].parameters == 2 * (16 + 6) + 8
    low_rank = model.model_copy(update={"mla": MLA.model_copy(update={"q_lora_rank": 3})})
    compressed = 8 * 3 + 3 * 4 * 6
    assert parts(low_rank)["attention"].parameters == 2 * (compressed + down + up + out)
    assert parts(low_rank)["norms"].parameters == 2 * (16 + 6 + 3) + 8
    # The core: (6 + 5) / 2 in head_dim's place.
    core = parts(model)["attention"].training_flops_per_token - 6 * 2 * (direct + down + up + out)
    assert core == 2 * 6 * 4 * (6 + 5) * 16 / 2


OPTIONS: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"qkv_bias": True}, {"attention": 2 * (12 + 6 + 6)}),
    ({"qk_norm": "head"}, {"norms": 2 * (3 + 3)}),
    ({"qk_norm": "full"}, {"norms": 2 * (12 + 6)}),
    ({"attention_sinks": True}, {"attention": 2 * 4}),
    ({"tie_embeddings": True}, {"LM head": -88, "LM head (tied)": 0}),
    (
        {"linear_bias": True},
        {
            "attention": 2 * (12 + 6 + 6 + 8),
            "router": 2 * 4,
            "routed experts": 2 * 4 * (5 + 5 + 8),
        },
    ),
    ({"moe": {"expert_bias": True, "score_function": "sigmoid"}}, {}),
    ({"moe": {"shared_expert_ffn_hidden_size": 7}}, {"shared experts": 2 * 3 * 8 * 7}),
    (
        {"moe": {"shared_expert_ffn_hidden_size": 7, "shared_expert_gate": True}},
        {"shared experts": 2 * 3 * 8 * 7, "shared expert gate": 2 * 8},
    ),
    (
        {"moe": {"first_dense_layers": 1}},
        {"dense FFN": 480, "routed experts": -480, "router": -32},
    ),
]


@pytest.mark.parametrize(("options", "difference"), OPTIONS, ids=[str(o[0]) for o in OPTIONS])
def test_each_option_adds_exactly_its_parameters(
    options: dict[str, Any], difference: dict[str, int]
) -> None:
    moe = SPARSE["moe"].model_dump() | options.get("moe", {})
    before = {name: part.parameters for name, part in parts(ModelConfig(**SPARSE)).items()}
    changed = parts(ModelConfig(**(SPARSE | options | {"moe": moe})))
    after = {name: part.parameters for name, part in changed.items()}
    names = before.keys() | after.keys()
    found = {name: after.get(name, 0) - before.get(name, 0) for name in names}
    assert {name: n for name, n in found.items() if n} == {k: n for k, n in difference.items() if n}


def test_each_mtp_layer_is_a_layer_a_projection_and_the_lm_head_once_more() -> None:
    plain, predicting = (ledger(ModelConfig(**(SPARSE | {"mtp_layers": n})), 16) for n in (0, 2))
    layer = 288 + 16 + 32 + 480
    assert predicting.mtp_parameters == 2 * (layer + 2 * 64 + 3 * 8)
    assert predicting.total_parameters == plain.total_parameters + predicting.mtp_parameters
    assert predicting.active_parameters == plain.active_parameters
    core = 6 * 4 * (3 + 3) * 8
    extra = predicting.training_flops_per_token - plain.training_flops_per_token
    assert extra == 2 * (6 * (288 + 2 * 120 + 128 + 88) + core)


def test_sliding_window_costs_what_its_positions_cost() -> None:
    def core(seq_len: int, **options: Any) -> int:
        model = ModelConfig(**(DENSE | {"num_layers": 1} | options))
        return parts(model, seq_len)["attention"].training_flops_per_token - 6 * 288

    # Counted one by one: position i sees min(i + 1, w), less a half (the convention's diagonal).
    seen = sum(min(i + 1, 4) - (0.5 if i < 4 else 0) for i in range(16)) / 16
    assert core(16, sliding_window=4) == 6 * 4 * (3 + 3) * seen
    assert core(16, sliding_window=16) == core(16, sliding_window=99) == core(16)


def test_every_nth_layer_of_a_windowed_model_sees_everything() -> None:
    model = ModelConfig(
        **(DENSE | {"num_layers": 5, "sliding_window": 4, "full_attention_interval": 2})
    )
    assert model.layer_windows == (4, None, 4, None, 4)


@pytest.mark.parametrize("preset", preset_names())
def test_components_sum_to_the_totals(preset: str) -> None:
    document = ledger(load_model(preset), 4096).as_json()
    for key, total in (
        ("parameters", "total_parameters"),
        ("active_parameters", "active_parameters"),
        ("active_matmul_parameters", "active_matmul_parameters"),
        ("training_flops_per_token", "training_flops_per_token"),
    ):
        assert sum(part[key] for part in document["components"]) == document[total]


@given(
    experts=st.integers(2, 64),
    top_k=st.integers(2, 8),
    inner=st.integers(1, 64),
    seq_len=st.integers(1, 10**6),
)
def test_only_top_k_of_the_experts_cost_flops(
    experts: int, top_k: int, inner: int, seq_len: int
) -> None:
    def cost(num_experts: int) -> Ledger:
        moe = MoeConfig(num_experts=num_experts, top_k=top_k, expert_ffn_hidden_size=inner)
        return ledger(ModelConfig(**(DENSE | {"moe": moe})), seq_len)

    few, many = cost(max(experts, top_k)), cost(2 * max(experts, top_k))
    assert few.training_flops_per_token == many.training_flops_per_token
    assert few.active_matmul_parameters == many.active_matmul_parameters
    assert few.total_parameters < many.total_parameters
    assert few.active_parameters <= few.total_parameters


def test_command_prints_the_contract_and_nothing_else() -> None:
    command = [sys.executable, "-m", "moescale", "cost", "small", "--seq-len", "256", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(result.stdout)
    assert document == {"model": "small"} | ledger(load_model("small"), 256).as_json()
    assert {"name", "parameters", "active_parameters", "training_flops_per_token"} <= set(
        document["components"][0]
    )
    assert result.stderr == ""


def test_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="seq_len=0"):
        ledger(load_model("tiny"), 0)
