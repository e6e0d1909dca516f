"""The planner's parameters, gradients and optimizer states are what ranks allocate, to the byte."""

from typing import Any

import pytest

from moe.config.model import ModelConfig
from moe.config.train import TrainConfig
from moe.cost.model_shape import shape_of
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.layout.placement import place
from parallel.planner.software import OUR_STATE, OURS
from parallel.planner.state import ALIGNED_ELEMENTS, RankState, rank_state
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision
from tests.support.distributed import run_ranks
from tests.support.model_shapes import coordinates
from tests.support.rank_state import allocated_state

pytestmark = pytest.mark.engine
TRAIN = TrainConfig(steps=1, seq_len=32, micro_batch_size=1, global_batch_size=8)
BATCH = BatchSize(seq_len=32, micro_batch_size=1, global_batch_size=8)
ALIGNED: dict[str, Any] = {
    "num_layers": 4, "hidden_size": 64, "num_heads": 4, "num_kv_heads": 2, "head_dim": 32,
    "ffn_hidden_size": 192, "vocab_size": 320, "max_seq_len": 64,
    "moe": {"num_experts": 8, "top_k": 2, "expert_ffn_hidden_size": 64,
            "shared_expert_ffn_hidden_size": 64, "first_dense_layers": 1},
}  # fmt: skip
"""Every tensor's size is a multiple of 64, as in trained models; buffers still need padding."""
LATENT: dict[str, Any] = {
    **{k: v for k, v in ALIGNED.items() if k not in ("num_kv_heads", "head_dim")},
    "mtp_layers": 1,
    "mla": {"q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32,
            "v_head_dim": 32},
}  # fmt: skip
"""Latent attention, and a multi-token-prediction layer, which needs the embedding once more."""
UNALIGNED = ALIGNED | {"qk_norm": "head", "head_dim": 20, "hidden_size": 40}
MODELS = {
    "sparse": ModelConfig.model_validate(ALIGNED),
    "tied": ModelConfig.model_validate(ALIGNED | {"tie_embeddings": True}),
    "latent": ModelConfig.model_validate(LATENT),
    "unaligned": ModelConfig.model_validate(UNALIGNED),
}
PRECISIONS = {"fp32": Precision(), "bf16": Precision(dtype="bf16")}
CASES = [(m, p) for m in MODELS for p in PRECISIONS]
TENSORS = 120
"""More than any of these ranks has."""
LAYOUTS: list[tuple[int, dict[str, Any]]] = [
    (2, {"tp": 2}),
    (2, {"ep": 2}),
    (2, {"pp": 2}),
    (2, {"pp": 2, "vpp": 2}),
    (2, {"pp": 2, "stage_layers": (1, 3)}),
    (2, {"tp": 2, "etp": 2}),
    (2, {"cp": 2}),
    (3, {}),
    (2, {"ep": 2, "distributed_optimizer": False}),
    (4, {"tp": 2, "pp": 2, "ep": 2}),
]


def modelled(layout: Layout, ranks: int, name: str, precision: str, stage: int) -> RankState:
    work = Workload(
        shape=shape_of(MODELS[name]),
        placement=place(layout, ranks),
        batch=BATCH,
        precision=PRECISIONS[precision],
    )
    return rank_state(work, stage, OUR_STATE, OURS)


@pytest.mark.parametrize(("ranks", "values"), LAYOUTS, ids=str)
def test_ranks_allocate_what_is_modelled(ranks: int, values: dict[str, Any]) -> None:
    layout = Layout(**values, device="cpu")
    cases = [(MODELS[name], PRECISIONS[precision]) for name, precision in CASES]
    by_rank = run_ranks(ranks, allocated_state, layout, TRAIN, cases)
    stages = [coordinates(place(layout, ranks), rank)["pp"] for rank in range(ranks)]
    for number, (name, precision) in enumerate(CASES):
        for stage in range(layout.pp):
            found = [by_rank[rank][number] for rank in range(ranks) if stages[rank] == stage]
            model = modelled(layout, ranks, name, precision, stage)
            expected = (model.parameter_bytes, model.gradient_bytes, model.optimizer_bytes)
            fullest = tuple(max(column) for column in zip(*found, strict=True))
            if name != "unaligned":
                assert fullest == expected, (name, precision, stage)
                continue
            # Holes before unaligned tensors: more in a buffer, more or fewer states in a shard.
            more = [a - b for a, b in zip(fullest, expected, strict=True)]
            assert all(abs(extra) <= 12 * ALIGNED_ELEMENTS * TENSORS for extra in more), more
