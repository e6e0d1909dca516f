"""FLOPs of documents: against counting key by key, and the ledger where there is no mask."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe.config.model import ModelConfig
from moe.cost.document_flops import DocumentFlops
from moe.cost.ledger import ledger
from tests.support.architecture_options import DENSE, LATENT

PLAIN: dict[str, Any] = {"num_layers": 2, "hidden_size": 64, "num_heads": 4, "vocab_size": 264,
                         "max_seq_len": 4096, "ffn_hidden_size": 128}  # fmt: skip
MODELS = {
    "plain": PLAIN,
    "sparse": PLAIN | {"moe": {"num_experts": 8, "top_k": 2, "expert_ffn_hidden_size": 24}},
    "windowed": PLAIN | {"num_layers": 3, "sliding_window": 5, "full_attention_interval": 2},
    "predicting": PLAIN | {"mtp_layers": 2, "sliding_window": 4},
    "latent": {k: v for k, v in DENSE.items() if k not in {"num_kv_heads", "head_dim"}}
    | {"mla": LATENT, "mtp_layers": 1},
}
CONFIGS = {name: ModelConfig.model_validate(values) for name, values in MODELS.items()}


def _documents(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Positions of the documents of shared fault 15: a byte each, the end is only a label."""
    texts = [f"document {i} says {i * 7919 % 100003} and some words" for i in range(count)]
    return np.array([len(text) for text in texts])


def test_short_documents_cost_what_they_see() -> None:
    model = CONFIGS["plain"]
    whole = ledger(model, 4096).training_flops_per_token
    lengths = _documents(1500)
    masked = DocumentFlops(model).of_documents(lengths) / lengths.sum()
    assert whole == pytest.approx(3.739e6, rel=1e-3)
    assert masked == pytest.approx(6.24e5, rel=2e-3)
    # At the same speed, MFU of 1.248 over whole rows is one of 0.208.
    assert 1.248 * masked / whole == pytest.approx(0.208, abs=5e-4)


def _slow(model: ModelConfig, lengths: list[int]) -> int:
    """Count documents by each token, layer and visible key."""
    one = ledger(model, 1)
    key = 6 * model.num_heads * (model.query_head_dim + model.value_head_dim)
    flops = 0
    for length in lengths:
        for place in range(length):
            flops += 6 * one.active_matmul_parameters
            for window in model.layer_windows:
                flops += key * min(place + 1, window or length)
            for depth in range(1, model.mtp_layers + 1):
                if place + depth < length:
                    flops += _prediction(model) + key * min(
                        place + 1, model.layer_windows[-1] or length
                    )
    return flops


def _prediction(model: ModelConfig) -> int:
    """FLOPs of one prediction's matrix products: what a layer of prediction adds but attention."""
    more, fewer = (
        ledger(model.model_copy(update={"mtp_layers": n, "sliding_window": None}), 2)
        for n in (1, 0)
    )
    key = 6 * model.num_heads * (model.query_head_dim + model.value_head_dim)
    return more.training_flops_per_token - fewer.training_flops_per_token - key


@settings(max_examples=25, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6))
@pytest.mark.parametrize("name", CONFIGS)
def test_documents_are_counted_key_by_key(name: str, lengths: list[int]) -> None:
    model = CONFIGS[name]
    assert DocumentFlops(model).of_documents(np.array(lengths)) == _slow(model, lengths)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6))
@pytest.mark.parametrize("name", CONFIGS)
def test_rows_without_a_mask_count_as_the_ledger_says(name: str, lengths: list[int]) -> None:
    model = CONFIGS[name]
    found = DocumentFlops(model).of_rows(np.array(lengths))
    assert found == sum(n * ledger(model, n).training_flops_per_token for n in lengths if n)
