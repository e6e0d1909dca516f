"""The ledger and the memory model count what megatron-core builds, option by option."""

from typing import Any

import pytest
from counting import count_parameters, engine_chunk_layers
from ranks import run_ranks

from moe.config.model import ModelConfig
from moe.ledger import ledger
from moe.shape import shape_of
from parallel.layout import Layout
from parallel.layout_check import layout_faults
from parallel.memory import rank_parameters
from parallel.placement import place
from parallel.precision import Precision
from parallel.shape import Batch

pytestmark = pytest.mark.engine
DENSE: dict[str, Any] = {
    "num_layers": 4, "hidden_size": 32, "num_heads": 4, "num_kv_heads": 2, "head_dim": 6,
    "ffn_hidden_size": 40, "vocab_size": 64, "max_seq_len": 32,
}  # fmt: skip
MOE = {"num_experts": 4, "top_k": 2, "expert_ffn_hidden_size": 12}
LATENT: dict[str, Any] = {
    "kv_lora_rank": 10, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
}  # fmt: skip


def sparse(**options: Any) -> dict[str, Any]:
    return DENSE | {"moe": MOE | options}


def latent(**options: Any) -> dict[str, Any]:
    whole = {k: v for k, v in sparse().items() if k not in {"num_kv_heads", "head_dim"}}
    return whole | {"mla": LATENT | options}


MODELS: dict[str, dict[str, Any]] = {
    "dense": DENSE,
    "sparse": sparse(),
    "tied": sparse() | {"tie_embeddings": True},
    "qkv_bias": sparse() | {"qkv_bias": True},
    "qk_norm_head": sparse() | {"qk_norm": "head"},
    "qk_norm_full": sparse() | {"qk_norm": "full"},
    "all_heads": {key: value for key, value in sparse().items() if key != "num_kv_heads"},
    "yarn": sparse() | {"rope": {"scaling": "yarn", "factor": 4.0, "original_max_seq_len": 8}},
    "first_dense": sparse(first_dense_layers=1),
    "interleaved": sparse(layer_interval=2),
    "shared": sparse(shared_expert_ffn_hidden_size=24),
    "shared_gate": sparse(shared_expert_ffn_hidden_size=24, shared_expert_gate=True),
    "sigmoid_bias_groups": sparse(
        score_function="sigmoid", expert_bias=True, num_groups=2, group_top_k=1
    ),
    "capacity": sparse(capacity_factor=1.0),
    "predicting": sparse(first_dense_layers=1) | {"mtp_layers": 1},
    "predicting_tied": sparse() | {"mtp_layers": 1, "tie_embeddings": True},
    "latent": latent(),
    "latent_queries": latent(q_lora_rank=14),
    "deepseek": latent(q_lora_rank=14)
    | {
        "moe": MOE | {"first_dense_layers": 1, "shared_expert_ffn_hidden_size": 12},
        "mtp_layers": 1,
    },
}


CONFIGS = {name: ModelConfig.model_validate(values) for name, values in MODELS.items()}
LAYOUT = Layout(tp=2, pp=2, ep=2, device="cpu")
BATCH = Batch(seq_len=32, micro_batch_size=1, global_batch_size=2)
POSSIBLE = {
    name: model
    for name, model in CONFIGS.items()
    if not layout_faults(LAYOUT, shape_of(model), BATCH, num_ranks=4)
}


def test_only_what_cannot_be_laid_out_is_left_out() -> None:
    assert set(MODELS) - set(POSSIBLE) == {"dense", "predicting_tied"}


@pytest.fixture(scope="module")
def alone() -> dict[str, int]:
    counts: dict[str, int] = run_ranks(1, count_parameters, Layout(device="cpu"), CONFIGS)[0]
    return counts


@pytest.fixture(scope="module")
def apart() -> list[dict[str, int]]:
    return run_ranks(4, count_parameters, LAYOUT, POSSIBLE)


@pytest.mark.parametrize("name", CONFIGS)
def test_ledger_counts_the_built_model(name: str, alone: dict[str, int]) -> None:
    assert ledger(CONFIGS[name], 32).total_parameters == alone[name]


@pytest.mark.parametrize("name", POSSIBLE)
def test_memory_model_counts_each_ranks_share(name: str, apart: list[dict[str, int]]) -> None:
    shape = shape_of(POSSIBLE[name])
    for rank, counts in enumerate(apart):
        stage = place(LAYOUT, 4).coordinates(rank)["pp"]
        assert rank_parameters(shape, LAYOUT, Precision(), stage).total == counts[name], rank


@pytest.mark.parametrize(
    ("num_layers", "layout"),
    [
        (8, {"pp": 4}),
        (24, {"pp": 4, "vpp": 3}),
        (10, {"pp": 3, "ends_count_as_layers": True}),
        (126, {"pp": 8, "vpp": 8, "ends_count_as_layers": True}),
    ],
)
def test_stages_hold_the_layers_that_the_engine_deals_them(
    num_layers: int, layout: dict[str, Any]
) -> None:
    laid = Layout(**layout)
    model = CONFIGS["dense"].model_copy(update={"num_layers": num_layers})
    dealt = run_ranks(1, engine_chunk_layers, laid, model)[0]
    assert dealt == [list(stage) for stage in laid.chunk_layers(num_layers)]
