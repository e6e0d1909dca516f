"""Files that Megatron-Bridge itself wrote: which model they state, its weights and its logits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.config.model import ModelConfig
from moe.convert.megatron.model_settings import model_of, only_in_training
from moe.convert.megatron.settings import of_run_config
from moe.errors import ConfigError
from tests.support.distributed import run_ranks
from tests.support.loaded_logits import logits_of
from tests.support.trained_runs import command

WRITTEN = Path(__file__).parents[1] / "fixtures/megatron_bridge_0_6_0"
RUN_CONFIGS = WRITTEN / "run_configs"


LAYERS = """transformer_layer_spec:
    _call_: false
    _target_: megatron.bridge.models.gpt_provider.default_layer_spec"""
BLOCK = "megatron.core.models.gpt.gpt_layer_specs.get_gpt_decoder_block_spec"


def _model(family: str) -> ModelConfig:
    return model_of(of_run_config(RUN_CONFIGS / f"{family}.yaml"), 120)


def _converted(tmp_path: Path) -> tuple[Path, str]:
    code, _, said = command("convert", "from-megatron", WRITTEN, "-o", tmp_path / "ours")
    assert code == 0, said
    return tmp_path / "ours", said


def test_padding_and_extra_states_are_left_behind(tmp_path: Path) -> None:
    _, said = _converted(tmp_path)
    assert "27 of extra state left behind" in said
    assert "the vocabulary's 128 rows cut to vocab_size = 120" in said


@pytest.mark.engine
def test_a_model_computes_what_it_did_in_megatron_bridge(tmp_path: Path) -> None:
    [found] = run_ranks(1, logits_of, _converted(tmp_path)[0])
    np.testing.assert_allclose(found, np.load(WRITTEN / "logits.npy")[..., :120], atol=5e-6)


def test_gpt_oss_has_the_scale_of_attention_that_null_means() -> None:
    model = _model("gpt_oss")
    assert (model.rope.scaling, model.rope.factor) == ("yarn", 32)
    assert (model.rope.mscale, model.rope.mscale_all_dim) == (1, 0)
    assert (model.sliding_window, model.full_attention_interval) == (8, 2)
    assert (model.activation, model.attention_sinks) == ("clamped_swiglu", True)


@pytest.mark.parametrize(
    ("family", "norm"),
    [("olmoe", "full"), ("minimax_m2", "full"), ("glm4_moe", "head"), ("gpt_oss", "none")],
)
def test_norms_of_queries_and_keys_are_those_of_the_named_layers(family: str, norm: str) -> None:
    assert _model(family).qk_norm == norm


def test_deepseek_has_its_dense_layer_and_its_groups() -> None:
    model = _model("deepseek_v3")
    assert model.mla is not None and model.moe is not None
    assert model.sparse_layers == (False, True)
    assert (model.moe.num_groups, model.moe.group_top_k, model.moe.scaling_factor) == (4, 2, 2.5)


def test_biases_that_stood_still_are_said_to_move_here() -> None:
    settings = of_run_config(RUN_CONFIGS / "glm4_moe.yaml")
    model = _model("glm4_moe")
    assert model.moe is not None and model.moe.expert_bias
    assert model.moe.expert_bias_update_rate == 1e-3
    assert any("moe_router_bias_update_rate = 0" in note for note in only_in_training(settings))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gpt_provider.default_layer_spec", "gemma.layers", "transformer_layer_spec = 'megatron"),
        ("gpt_provider.default_layer_spec", "gpt_provider.modelopt_transformer_layer_spec",
         "transformer_layer_spec = "),
        ("megatron.bridge.models.gpt_provider.GPTModelProvider", "mine.Provider",
         "_target_ = 'mine.Provider' cannot be converted: it is code that the checkpoint only"),
        ("megatron.bridge.models.gpt_provider.GPTModelProvider",
         "megatron.bridge.models.mamba.MambaProvider", "_target_ = 'megatron.bridge.models.mamba"),
        ("megatron.bridge.models.gpt_provider.GPTModelProvider",
         "megatron.bridge.models.gemma.gemma_provider.GemmaModelProvider", "_target_ = 'megatron"),
        ("megatron.bridge.models.gpt_provider.GPTModelProvider",
         "megatron.bridge.models.qwen.qwen_provider.Qwen3NextModelProvider", "_target_ = 'mega"),
        ("megatron.bridge.models.gpt_provider.GPTModelProvider", "[a]", "_target_ = "),
        (LAYERS, "transformer_layer_spec: [a]", "transformer_layer_spec = \"['a']\" cannot be"),
        (LAYERS, "transformer_layer_spec: {a: 1}", "transformer_layer_spec = '<dict>' cannot be"),
        (LAYERS, f"transformer_layer_spec: {{_target_: {BLOCK}, _partial_: true, qk_l2_norm: 1}}",
         f"transformer_layer_spec = '{BLOCK}(qk_l2_norm)' cannot be converted"),
        (LAYERS, f"transformer_layer_spec: {{_target_: {BLOCK}, _call_: true, _args_: [1]}}",
         f"transformer_layer_spec = '{BLOCK}(_call_, _args_)' cannot be converted"),
        ("torch.nn.functional.silu", "mine.silu", "activation_func = 'mine.silu' cannot be"),
        ("_target_: torch.nn.functional.silu", "_target_: torch.nn.functional.silu\n    inplace: 1",
         "activation_func = 'silu(inplace)' cannot be"),
        ("rope_scaling: false", "old_context_len: 8192", "old_context_len = 8192 cannot be"),
    ],
)  # fmt: skip
def test_code_that_is_only_named_is_refused(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    text = (WRITTEN / "iter_0000000/run_config.yaml").read_text()
    assert old in text
    path = tmp_path / "run_config.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        model_of(of_run_config(path), 120)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "owner",
    ["mla_provider.MLAModelProvider", "gpt.gpt_builder.GPTModelConfig",
     "gpt.model_config.BridgeGPTModelConfig", "qwen.qwen_provider.Qwen3MoEModelProvider30B_A3B",
     "llama.llama_provider.Llama32ModelProvider1B", "gpt_oss.gpt_oss_provider.GPTOSSProvider20B"],
)  # fmt: skip
def test_classes_of_the_other_keys_are_read(owner: str, tmp_path: Path) -> None:
    text = (WRITTEN / "iter_0000000/run_config.yaml").read_text()
    path = tmp_path / "run_config.yaml"
    path.write_text(text.replace("models.gpt_provider.GPTModelProvider", f"models.{owner}"))
    assert owner in path.read_text()
    wanted = of_run_config(WRITTEN / "iter_0000000/run_config.yaml")
    assert model_of(of_run_config(path), 120) == model_of(wanted, 120)


def test_only_weights_of_adapters_are_no_model(tmp_path: Path) -> None:
    """Of a model that it fine-tunes with LoRA, Megatron-Bridge saves the adapters alone."""
    source = Path(shutil.copytree(WRITTEN, tmp_path / "written"))
    text: Any = (source / "iter_0000000/.metadata").read_bytes()
    (source / "iter_0000000/.metadata").write_bytes(
        text.replace(b"embedding.word_embeddings.weight", b"decoder.layers.adapter.linear_in")
    )
    code, _, said = command("convert", "from-megatron", source, "-o", tmp_path / "ours")
    assert code == 2
    assert "no tensor embedding.word_embeddings.weight" in said
