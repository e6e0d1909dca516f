"""Files that Megatron-LM itself wrote: which model they state, and where its weights are."""

from collections import Counter
from pathlib import Path

from moe.convert.megatron.dist_directory import DistDirectory, checkpoint_folder
from moe.convert.megatron.model_settings import model_of
from moe.convert.megatron.settings import read_settings
from moe.convert.megatron.tensor_names import left_behind, place_tensors

WRITTEN = Path(__file__).parents[1] / "fixtures" / "megatron_lm_0_16_1"


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
