"""The quantities of a model, by hand."""

import pytest

from benchmarks.laws.model_sizes import sizes_of
from moe.config.experiment import load_model
from moe.config.model import ModelConfig, MoeConfig
from moe.cost.ledger import ledger

DENSE = ModelConfig(
    num_layers=2, hidden_size=64, num_heads=4, ffn_hidden_size=256, vocab_size=100, max_seq_len=8
)
SPARSE = DENSE.model_copy(
    update={
        "moe": MoeConfig(
            num_experts=16, top_k=3, expert_ffn_hidden_size=32, shared_expert_ffn_hidden_size=32
        )
    }
)


def test_a_sparse_model() -> None:
    sizes, costs = sizes_of(SPARSE), ledger(SPARSE, 1)
    embedding = 2 * 100 * 64
    assert sizes["parameters"] == costs.total_parameters
    assert sizes["active_parameters"] == costs.active_parameters
    assert sizes["embedding_parameters"] == embedding
    assert sizes["non_embedding_parameters"] == costs.total_parameters - embedding
    assert sizes["active_non_embedding_parameters"] == costs.active_parameters - embedding
    assert (sizes["granularity"], sizes["hidden_granularity"]) == (8, 4)
    assert (sizes["experts"], sizes["top_k"], sizes["shared_experts"]) == (16, 3, 1)
    assert sizes["sparsity"] == pytest.approx(13 / 16)
    assert sizes["activation_ratio"] == pytest.approx(4 / 17)
    assert (sizes["active_experts"], sizes["shared_ratio"]) == (4, 0.25)
    assert "flops" not in sizes  # they need tokens


def test_a_dense_model_is_one_expert() -> None:
    sizes = sizes_of(DENSE)
    assert (sizes["experts"], sizes["top_k"], sizes["granularity"]) == (1, 1, 1)
    assert (sizes["sparsity"], sizes["activation_ratio"], sizes["shared_experts"]) == (0, 1, 0)


def test_what_a_model_does_not_say_is_left_out() -> None:
    assert "granularity" not in sizes_of(load_model("small"))
