"""Models of the ladder: the cited counts, the nearest legal size, what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.errors import BenchmarkError
from benchmarks.ladder.build import check_unturned, dials_of
from benchmarks.ladder.dials import Dials
from benchmarks.ladder.rungs import SLACK, model_of, rung_of
from moe.config.experiment import load_model
from moe.cost.ledger import ledger
from moe.errors import ConfigError

SMALL: dict[str, Any] = {"vocab_size": 512, "head_dim": 16, "max_seq_len": 128}


@pytest.mark.parametrize("experts", [1, 2, 8, 32])
def test_counts_are_those_of_the_cited_ladder(experts: int) -> None:
    """Ludziejewski et al. 2025: 2 d V + 13 n d^2 active, 2 d V + (4 + 9 E) n d^2 in all."""
    width, vocab = 1024, 50_257
    model = model_of(Dials(hidden_size=width, experts=experts, vocab_size=vocab, qk_norm="none"))
    layers = width // 64
    assert (model.num_layers, model.num_heads) == (layers, layers)
    costs = ledger(model, 1)
    norms_and_router = (2 * layers + 1) * width + (layers * width * experts if experts > 1 else 0)
    embeddings = 2 * width * vocab
    active = embeddings + 13 * layers * width**2
    total = embeddings + (4 + 9 * experts) * layers * width**2
    assert costs.active_parameters == active + norms_and_router
    assert costs.total_parameters == total + norms_and_router


@pytest.mark.parametrize("experts", [1, 16])
@pytest.mark.parametrize("size", ["active_parameters", "parameters"])
@pytest.mark.parametrize("embeddings", ["in", "out"])
def test_no_legal_model_is_nearer(experts: int, size: str, embeddings: str) -> None:
    """All widths and depths near the aspect ratio, tried one by one."""
    asked = 2.3e6
    shared: dict[str, Any] = {"experts": experts, "embeddings": embeddings, **SMALL}
    found = rung_of(Dials.model_validate({size: asked, **shared}))
    sizes = []
    for width in range(16, 1024, 16):
        ideal = width / 64
        for depth in range(1, 20):
            if ideal / SLACK <= depth <= ideal * SLACK or depth == max(1, round(ideal)):
                dials = Dials(hidden_size=width, num_layers=depth, **shared)
                costs = ledger(model_of(dials), 1)
                total = size == "parameters"
                count = costs.total_parameters if total else costs.active_parameters
                sizes.append(count - (costs.embedding_parameters if embeddings == "out" else 0))
    best = min(max(count / asked, asked / count) for count in sizes if count > 0)
    assert max(found.real / asked, asked / found.real) == pytest.approx(best)
    assert found.error == found.real / asked - 1


@settings(max_examples=25, deadline=None)
@given(
    asked=st.floats(3e5, 1e9), factor=st.floats(1, 3), experts=st.sampled_from([1, 8, 64]),
    granularity=st.sampled_from([1, 4, 16]), depth=st.sampled_from([None, 3]),
)  # fmt: skip
def test_more_parameters_never_give_fewer(
    asked: float, factor: float, experts: int, granularity: float, depth: int | None
) -> None:
    shared: dict[str, Any] = {
        "experts": experts, "granularity": granularity, "num_layers": depth, "first_dense_layers": 1
    }  # fmt: skip
    few, many = (
        rung_of(Dials(active_parameters=size, **shared, **SMALL))
        for size in (asked, asked * factor)
    )
    assert few.real <= many.real
    assert abs(few.error) < 0.5


def test_experts_are_cut_from_the_dense_network() -> None:
    dense = model_of(Dials(hidden_size=256))
    sparse = model_of(Dials(hidden_size=256, experts=32, granularity=4, shared_experts=1))
    assert dense.moe is None
    assert sparse.moe is not None
    assert (dense.ffn_hidden_size, sparse.moe.expert_ffn_hidden_size) == (768, 192)
    assert sparse.moe.top_k == 3  # with the shared expert as wide as the dense network
    assert sparse.moe.shared_expert_ffn_hidden_size == 192
    assert not model_of(Dials(hidden_size=256, experts=8)).moe.normalize_top_k  # type: ignore[union-attr]


def test_what_dials_leave_open_is_as_in_the_base() -> None:
    base = load_model("moonlight-16b-a3b").model_copy(update={"mla": None, "init_std": 0.01})
    model = model_of(Dials(active_parameters=1e8, experts=16, top_k=2), base)
    assert model.moe is not None
    assert base.moe is not None
    assert (model.init_std, model.rope) == (0.01, base.rope)
    assert model.moe.score_function == base.moe.score_function == "sigmoid"
    assert (model.moe.num_experts, model.moe.first_dense_layers) == (16, 0)
    assert model_of(Dials(active_parameters=1e8), base).moe is None


@pytest.mark.parametrize(
    "name", ["qwen3-235b-a22b", "glm-4.5-air", "gpt-oss-120b", "mixtral-8x7b", "llama3-8b", "small"]
)
def test_a_published_model_is_its_own_rung(name: str) -> None:
    base = load_model(name)
    size = {"hidden_size": base.hidden_size, "num_layers": base.num_layers}
    model = model_of(Dials.model_validate(dials_of(base) | size), base)
    check_unturned(base, model, ())
    kept = base.model_copy(update={"preset": None, "ffn_hidden_size": model.ffn_hidden_size})
    for key in ("hidden_size", "num_heads", "kv_heads", "query_head_dim", "moe"):
        assert getattr(model, key) == getattr(kept, key)
    assert base.ffn_hidden_size in (None, model.ffn_hidden_size)


def test_attention_keeps_its_share_of_the_width() -> None:
    base = load_model("glm-4.5-air")  # 96 heads of 128 on a width of 4096
    half = model_of(Dials.model_validate(dials_of(base) | {"hidden_size": 2048}), base)
    assert (half.hidden_size, half.num_heads, half.kv_heads) == (2048, 48, 4)


def test_a_shared_expert_may_be_wider_than_the_others() -> None:
    dials = Dials(hidden_size=256, experts=32, granularity=8, shared_experts=1.5)
    moe = model_of(dials).moe
    assert moe is not None
    assert (moe.expert_ffn_hidden_size, moe.shared_expert_ffn_hidden_size) == (96, 144)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "a size is one of active_parameters, parameters, hidden_size; given: none"),
        ({"parameters": 1e9, "hidden_size": 64}, "given: parameters and hidden_size"),
        ({"parameters": 1e9, "experts": 4, "top_k": 5}, "top_k=5 exceeds experts=4"),
        ({"hidden_size": 64, "experts": 4, "num_layers": 2, "first_dense_layers": 2}, "lower it"),
    ],
)
def test_wrong_dials_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dials.model_validate(values)


def test_sizes_that_no_model_has_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="active_parameters=1000: the nearest model has"):
        rung_of(Dials(active_parameters=1000))
    with pytest.raises(ConfigError, match="model.num_heads"):
        rung_of(Dials(hidden_size=10**9))
    latent = load_model("deepseek-v2-lite")
    with pytest.raises(BenchmarkError, match="no latent attention"):
        rung_of(Dials(hidden_size=64), latent)
