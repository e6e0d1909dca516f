"""Files that Megatron-LM itself wrote: which model they state, its weights and its logits."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from moe.convert.megatron.dist_directory import DistDirectory, checkpoint_folder
from moe.convert.megatron.model_settings import model_of
from moe.convert.megatron.settings import read_settings
from moe.convert.megatron.tensor_names import left_behind, place_tensors
from tests.support.distributed import run_ranks
from tests.support.loaded_logits import logits_of
from tests.support.trained_runs import command

FIXTURES = Path(__file__).parents[1] / "fixtures"
WRITTEN = FIXTURES / "megatron_lm_0_16_1"
WITH_LOGITS = FIXTURES / "megatron_lm_0_19_0"


def test_the_model_is_what_megatron_lm_was_asked_for() -> None:
    source = DistDirectory(checkpoint_folder(WRITTEN))
    model = model_of(read_settings(source), 256)
    assert model.moe is not None
    sizes = (model.num_layers, model.hidden_size, model.num_heads, model.kv_heads)
    assert sizes == (2, 32, 4, 2)
    assert (model.head_dim, model.qk_norm, model.rope.theta) == (12, "head", 1e6)
    assert (model.vocab_size, model.max_seq_len, model.tie_embeddings) == (250, 64, False)
    assert (model.moe.num_experts, model.moe.top_k) == (4, 2)
    assert (model.moe.expert_ffn_hidden_size, model.moe.router_dtype) == (12, "fp32")


def test_every_tensor_is_a_weight_or_counted() -> None:
    source = DistDirectory(checkpoint_folder(WRITTEN))
    shapes = {key: tensor.shape for key, tensor in source.tensors.items()}
    placed = place_tensors(model_of(read_settings(source), 256), shapes)
    assert (placed.missing, placed.misshapen, len(placed.used)) == ([], [], 12)
    others = [key for key in (*shapes, *source.objects) if key not in placed.used]
    counts = Counter(map(left_behind, others))
    assert counts == {"extra state": 20, "optimizer": 6, "random state": 1}


@pytest.mark.engine
def test_a_model_computes_what_it_did_in_megatron_lm(tmp_path: Path) -> None:
    code, _, said = command("convert", "from-megatron", WITH_LOGITS, "-o", tmp_path / "ours")
    assert code == 0, said
    [found] = run_ranks(1, logits_of, tmp_path / "ours")
    np.testing.assert_allclose(found, np.load(WITH_LOGITS / "logits.npy"), atol=5e-6)


def test_what_we_write_has_every_name_that_its_loader_wants(tmp_path: Path) -> None:
    """Transformer Engine's norms and linear layers have extra states, which it does not miss."""
    for way, source in (
        ("from-megatron", WITH_LOGITS),
        ("to-megatron", tmp_path / "from-megatron"),
    ):
        code, _, said = command("convert", way, source, "-o", tmp_path / way)
        assert code == 0, said
    theirs, ours = (
        DistDirectory(checkpoint_folder(folder))
        for folder in (WITH_LOGITS, tmp_path / "to-megatron")
    )
    assert ours.tensors.keys() == theirs.tensors.keys()
    lacking = theirs.objects.keys() - ours.objects.keys()
    assert {left_behind(key) for key in lacking} == {"training state"}
