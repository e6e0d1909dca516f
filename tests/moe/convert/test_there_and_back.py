"""Models at random to Hugging Face and back: the same model, and the same to transformers."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from moe.config.model import ModelConfig
from moe.convert.family import functional_config, model_differences
from moe.convert.hub_config import HubConfig
from moe.convert.hugging_face import from_hub
from moe.convert.registry import FAMILIES, family_for
from moe.errors import ConfigError
from tests.moe.convert.test_class_defaults import config_class, written
from tests.moe.convert.test_same_logits import loaded_logits, tokens
from tests.support.distributed import run_ranks
from tests.support.hf_rank_jobs import all_logits
from tests.support.hf_reference_models import MODELS, make_model

pytestmark = pytest.mark.needs("hub")

SIZES = st.sampled_from([4, 8, 12, 24])
FLAGS = st.booleans()
EPSILONS = st.sampled_from([1e-6, 1e-2])


def some(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw values for some of these keys."""
    return st.fixed_dictionaries({}, optional=values)


ROPES = st.one_of(
    some(theta=st.sampled_from([500.0, 1e6]), fraction=st.sampled_from([0.5, 1.0])),
    some(
        scaling=st.just("llama3"), factor=st.just(8.0), low_frequency_factor=st.just(2.0),
        original_max_seq_len=st.just(16),
    ),
    some(
        scaling=st.just("yarn"), factor=st.sampled_from([1.0, 4.0]), beta_fast=st.just(8.0),
        mscale=st.sampled_from([0.0, 0.7, 1.0]), mscale_all_dim=st.sampled_from([0.0, 0.8]),
        round_correction_range=FLAGS,
    ),
)  # fmt: skip
EXPERTS = some(
    num_experts=st.sampled_from([4, 12]), top_k=st.integers(2, 4), expert_ffn_hidden_size=SIZES,
    shared_expert_ffn_hidden_size=st.sampled_from([0, 8, 16]), first_dense_layers=st.integers(0, 2),
    layer_interval=st.integers(1, 2), normalize_top_k=FLAGS, num_groups=st.just(2),
    group_top_k=st.just(1), scaling_factor=st.sampled_from([1.0, 2.5]),
    aux_loss_coefficient=st.sampled_from([0.0, 0.01]),
)  # fmt: skip
LATENT = some(
    q_lora_rank=st.none() | SIZES, kv_lora_rank=SIZES, v_head_dim=SIZES, norm_epsilon=EPSILONS
)
CHANGES = some(
    num_layers=st.integers(1, 6), num_kv_heads=st.sampled_from([1, 2, 4]), head_dim=SIZES,
    tie_embeddings=FLAGS, norm_epsilon=EPSILONS, qkv_bias=FLAGS, linear_bias=FLAGS,
    sliding_window=st.none() | SIZES, full_attention_interval=st.none() | st.integers(1, 3),
    rope=ROPES, mla=LATENT, moe=EXPERTS,
)  # fmt: skip


def changed(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a `[model]` table with keys changed; tables it lacks stay out."""
    result = dict(table)
    for key, value in changes.items():
        if not isinstance(value, dict):
            result[key] = value
        elif table[key] is not None:
            result[key] = table[key] | value
    return result


EXAMPLES = 20


def drawn(kind: str, changes: dict[str, Any]) -> tuple[ModelConfig, dict[str, Any]] | None:
    """Return a family's model with keys changed, and its `config.json`; None: it takes no such."""
    table = FAMILIES[kind].model(HubConfig(kind, written(kind))).model_dump()
    try:
        model = ModelConfig.model_validate(changed(table, changes))
    except ValidationError:
        assume(False)
    try:
        return model, family_for(model, kind)[1]
    except ConfigError as error:
        assert kind in str(error) and "\n" not in str(error)
        return None


@pytest.mark.parametrize("kind", MODELS)
def test_a_family_that_takes_a_model_says_the_same_to_transformers(kind: str) -> None:
    taken = 0

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(CHANGES)
    def check(changes: dict[str, Any]) -> None:
        nonlocal taken
        if (pair := drawn(kind, changes)) is None:
            return
        taken += 1
        model, values = pair
        for theirs in (values, config_class(kind)(**values).to_dict()):
            back = functional_config(FAMILIES[kind].model(HubConfig(kind, theirs)))
            assert model_differences(functional_config(model), back) == []

    check()
    assert taken > 0


def most_changed(kind: str) -> dict[str, Any]:
    """Return the `config.json` of a family's model with the most keys changed."""
    taken: list[tuple[int, dict[str, Any]]] = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(CHANGES)
    def draw(changes: dict[str, Any]) -> None:
        if pair := drawn(kind, changes):
            number = sum(len(v) if isinstance(v, dict) else 1 for v in changes.values())
            taken.append((number, pair[1]))

    draw()
    return max(taken, key=lambda pair: pair[0])[1]


OFF: list[dict[str, Any]] = [
    {"sliding_window": None, "full_attention_interval": None},
    {"rope": {"scaling": "none", "factor": 1.0, "mscale": 0.0, "mscale_all_dim": 0.0}},
    {"moe": {"num_groups": None, "group_top_k": None, "group_score_experts": None}},
    {"moe": {"first_dense_layers": 0, "layer_interval": 1}},
    {"mla": {"q_lora_rank": None}},
    {"tie_embeddings": False},
]
"""What a model may go without."""


def plainest(kind: str) -> dict[str, Any]:
    """Return the `config.json` of a family's model without all that the family does not need."""
    table = FAMILIES[kind].model(HubConfig(kind, written(kind))).model_dump()
    for off in OFF:
        plainer = changed(table, off)
        with suppress(ConfigError):
            family_for(ModelConfig.model_validate(plainer), kind)
            table = plainer
    return family_for(ModelConfig.model_validate(table), kind)[1]


@pytest.mark.parametrize("kind", MODELS)
def test_transformers_runs_a_model_without_what_it_may_go_without(kind: str) -> None:
    import transformers

    config = config_class(kind)(**plainest(kind), attn_implementation="eager")
    model = getattr(transformers, config.architectures[0])(config)
    model.config._experts_implementation = "eager"
    with torch.no_grad():
        assert model(tokens()).logits.isfinite().all()


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_models_at_random_have_the_logits_of_transformers(tmp_path: Path) -> None:
    theirs, checkpoints = {}, {}
    for kind in MODELS:
        hub, checkpoints[kind] = tmp_path / f"{kind}-hub", tmp_path / kind
        make_model(kind, hub, **most_changed(kind))
        theirs[kind] = loaded_logits(hub)
        from_hub(hub, checkpoints[kind])
    ours = run_ranks(1, all_logits, checkpoints, {}, tokens())[0]
    for kind, logits in theirs.items():
        limit = 1e-5 * max(1.0, np.abs(logits).max())
        assert np.abs(ours[kind] - logits).max() < limit, kind
