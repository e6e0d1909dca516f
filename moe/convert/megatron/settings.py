"""What a Megatron checkpoint says of its model, under the names of megatron-core's configuration.

Megatron-LM keeps its command line's arguments, as a pickled Namespace (`common.pt`, or since
megatron-core 0.19 an object among the tensors); Megatron-Bridge a `run_config.yaml`.
"""

from pathlib import Path
from typing import Any

import yaml

from data.storage.regular_file import read_regular
from moe.convert.hub_config import HubConfig
from moe.convert.megatron.dist_directory import DistDirectory, mapped_file
from moe.convert.megatron.pickle_data import AllowedNames, Name, Record
from moe.convert.megatron.torch_archive import NUMBER_FORMATS, TENSOR_NAMES, TorchArchive
from moe.errors import ConfigError

COMMON = "common.pt"
COMMON_KEY = "common_state/shard_0_1"
RUN_CONFIG = "run_config.yaml"
MAX_YAML_BYTES = 4 << 20
LLAMA3_FACTOR = 8.0
"""The only factor that every version of Megatron-LM's GPTModel takes from its arguments."""
_ARGUMENTS = {
    "num_moe_experts": "num_experts",
    "rope_scaling": "use_rope_scaling",
    "seq_len_interpolation_factor": "rotary_seq_len_interpolation_factor",
    "yarn_rotary_scaling_factor": "rotary_scaling_factor",
    "yarn_mscale": "mscale",
    "yarn_mscale_all_dim": "mscale_all_dim",
}
"""Names in megatron-core's configuration, and those of Megatron-LM's arguments where unlike."""
_ACTIVATIONS = {"swiglu": "silu", "quick_geglu": "quick_gelu", "squared_relu": "squared_relu"}
_OLD_ARGUMENTS = {
    "layernorm_epsilon": "norm_epsilon",
    "layernorm_zero_centered_gamma": "apply_layernorm_1p",
}
_YARN = {
    "yarn_rotary_scaling_factor": 1.0, "yarn_original_max_position_embeddings": 4096,
    "yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0, "yarn_mscale": 1.0, "yarn_mscale_all_dim": 0.0,
    "yarn_correction_range_round_to_int": True,
}  # fmt: skip
"""What Megatron-LM makes of arguments that are null (`_apply_yarn_config_from_args`)."""
_BEFORE = {
    "multi_latent_attention": False, "add_qkv_bias": False, "qk_layernorm": False,
    "glu_linear_offset": 0.0, "activation_func_clamp_value": None, "window_size": None,
    "window_attn_skip_freq": None, "softmax_type": "vanilla", "rope_scaling": False,
    "num_moe_experts": None, "moe_layer_freq": 1, "moe_ffn_hidden_size": None,
    "moe_shared_expert_intermediate_size": None, "moe_shared_expert_gate": False,
    "moe_router_score_function": "softmax", "moe_router_pre_softmax": False,
    "moe_router_topk_scaling_factor": None, "moe_router_num_groups": None,
    "moe_router_group_topk": None, "moe_router_enable_expert_bias": False,
    "moe_router_bias_update_rate": 1e-3, "moe_router_dtype": None, "moe_z_loss_coeff": None,
    "moe_expert_capacity_factor": None, "mtp_num_layers": None, "mtp_loss_scaling_factor": 0.1,
    "vocab_size": None, "beta_fast": 32.0, "beta_slow": 1.0,
}  # fmt: skip
"""What versions computed that had no such option yet."""
_NEUTRAL: dict[Any, tuple[Any, ...]] = {
    "_args_": ([],), "_call_": (False,), "_partial_": (True,),
    "use_transformer_engine": (True, False),
}  # fmt: skip
"""What may stand beside a name in YAML: a function itself, or of one kernel set's layers."""

STATE_NAMES = AllowedNames(
    TENSOR_NAMES
    | NUMBER_FORMATS
    | {"argparse.Namespace", "types.SimpleNamespace", "pathlib.PosixPath", "signal.Signals",
       "torch.Size", "torch.device", "_io.BytesIO", "_codecs.encode", "numpy.ndarray",
       "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.dtype",
       "numpy.dtypes.UInt32DType"},
    ("megatron.",),
)  # fmt: skip
"""What may stand in Megatron's common state; its own `safe_globals.py` has a like list."""


class MegatronSettings(HubConfig):
    """The settings; a key that decides what the model is, and that is missing, is asked for."""

    def value(self, key: str) -> Any:
        """Return a value, or what it was to versions without this key."""
        if key not in self.values and key not in self.defaults:
            raise ConfigError(
                f"{self.origin}: {key} is missing, and decides what the model is: give the model"
                " with --model FILE.toml"
            )
        return super().value(key)


def read_settings(source: DistDirectory) -> MegatronSettings:
    """Return what a checkpoint says of its model.

    Raises:
        ConfigError: It says nothing, or what it says cannot be read safely.
    """
    directory = source.directory
    if (directory / RUN_CONFIG).exists():
        return of_run_config(directory / RUN_CONFIG)
    if (directory / COMMON).exists():
        path = directory / COMMON
        state, origin = TorchArchive(mapped_file(path), str(path)).value(STATE_NAMES), str(path)
    elif COMMON_KEY in source.objects:
        origin = f"{directory} ({COMMON_KEY})"
        state = source.object(COMMON_KEY, STATE_NAMES)
        state = state[0] if isinstance(state, list) and state else None
    else:
        raise ConfigError(
            f"{directory}: neither {RUN_CONFIG} nor {COMMON} says what the model is: give it with"
            " --model FILE.toml"
        )
    return of_arguments(origin, arguments_in(state, origin))


def arguments_in(state: Any, origin: str) -> dict[str, Any]:
    """Return Megatron-LM's arguments in what it saved beside tensors.

    Raises:
        ConfigError: There are none.
    """
    arguments = state.get("args") if isinstance(state, dict) else None
    if not isinstance(arguments, Record) or arguments.kind != "argparse.Namespace":
        raise ConfigError(
            f"{origin}: no arguments of Megatron-LM in it (`args`): give the model with --model"
            " FILE.toml"
        )
    return arguments.fields()


def of_arguments(origin: str, arguments: dict[str, Any]) -> MegatronSettings:
    """Return the settings in Megatron-LM's arguments (`core_transformer_config_from_args`)."""
    given = {key: _plain(value) for key, value in arguments.items() if isinstance(key, str)}
    old = {ours: given[theirs] for ours, theirs in _OLD_ARGUMENTS.items() if theirs in given}
    values = old | given
    values |= {ours: given[theirs] for ours, theirs in _ARGUMENTS.items() if theirs in given}
    flags = MegatronSettings(origin, given, dict.fromkeys(_ACTIVATIONS, False))
    if "untie_embeddings_and_output_weights" in given:
        untied = flags.flag("untie_embeddings_and_output_weights")
        values["share_embeddings_and_output_weights"] = not untied
    if given.get("group_query_attention") is False:
        values["num_query_groups"] = None
    if "swiglu" in given:
        kinds = [kind for key, kind in _ACTIVATIONS.items() if flags.flag(key)]
        values["activation_func"] = next(iter(kinds), "gelu")
        values["gated_linear_unit"] = flags.flag("swiglu") or flags.flag("quick_geglu")
    if given.get("use_rope_scaling"):
        values.setdefault("rope_scaling_factor", LLAMA3_FACTOR)
    if given.get("position_embedding_type") == "yarn":
        null = {key for key in _YARN if key in values and values[key] is None}
        values |= {key: _YARN[key] for key in null}
    settings = MegatronSettings(origin, values, _BEFORE)
    if given.get("use_rope_scaling"):
        why = "not every version of Megatron-LM uses it: give the model with --model FILE.toml"
        settings.only("rope_scaling_factor", LLAMA3_FACTOR, why=why)
    return settings


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values; no merge keys, by which a short text can become a long one."""

    def flatten_mapping(self, node: Any) -> None:
        """Leave `<<` alone, which is then a tag that means nothing."""


def of_run_config(path: Path) -> MegatronSettings:
    """Return the settings in Megatron-Bridge's `run_config.yaml`.

    Raises:
        ConfigError: It is missing, not YAML of plain values, or has no `model`.
    """
    try:
        text = read_regular(path, MAX_YAML_BYTES, follow_link=False)
        config = yaml.load(text, Loader=_PlainLoader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        first = str(error).split("\n")[0][:200]
        raise ConfigError(f"{path}: not YAML of plain values: {first}") from None
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict):
        raise ConfigError(f"{path}: no `model` in it: give the model with --model FILE.toml")
    inner = model.get("transformer")
    if isinstance(inner, dict):
        model = inner | model
    plain = {key: _plain(value) for key, value in model.items() if isinstance(key, str)}
    if isinstance(plain.get("activation_func"), str):
        module, _, function = plain["activation_func"].rpartition(".")
        if module in {"", "torch.nn.functional"} or module.startswith("megatron.core."):
            plain["activation_func"] = function
    scales = ("yarn_mscale", "yarn_mscale_all_dim")
    if any(plain.get(key, 0) is None for key in scales):
        plain |= {key: _YARN[key] for key in scales}
    return MegatronSettings(f"{path}: model", plain, _BEFORE)


def _plain(value: Any) -> Any:
    """Return a number, text or list of such; what is none is named in brackets."""
    if isinstance(value, (list, tuple)):
        return [_plain_item(item) for item in value]
    return _plain_item(value)


def _plain_item(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 64:
        return f"<a number of {value.bit_length()} bits>"  # too long to be shown, perhaps
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict) and isinstance(value.get("_target_"), str):
        return _named(value)
    return value.kind if isinstance(value, (Name, Record)) else f"<{type(value).__name__}>"


def _named(table: dict[str, Any]) -> str:
    """Return what a table of Megatron-Bridge names, with the arguments that change it."""
    others = [
        str(_plain_item(key))
        for key, value in table.items()
        if key != "_target_" and value not in _NEUTRAL.get(key, ())
    ]
    name: str = table["_target_"]
    return f"{name}({', '.join(others)})" if others else name


def shown(value: Any) -> str:
    """Return a value for a message, short."""
    return str(_plain(value))[:40]
