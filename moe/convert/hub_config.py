"""Reading and writing Hugging Face's `config.json`: what all families have in common.

Keys as in transformers 4.57 and 5; what our models cannot express is refused by key and value.
"""

from collections.abc import Mapping
from typing import Any, Self

from moe.config.model import LARGEST_SIZE, MOST_LAYERS, ModelConfig
from moe.errors import ConfigError


class HubConfig:
    """The values of a `config.json`, asked for by key.

    A missing key has the default of the family's class; a null is a value of its own.
    """

    def __init__(
        self, origin: str, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.origin, self.values, self.defaults = origin, values, defaults or {}
        self.assumed: dict[str, Any] = {}
        """Values of the class that were asked for so far, since the file does not state them."""

    def with_defaults(self, defaults: Mapping[str, Any]) -> Self:
        """Return the same values with the defaults of a class."""
        return type(self)(self.origin, self.values, defaults)

    @property
    def transformers_major(self) -> int | None:
        """Major version of the transformers that wrote the file; None where it does not say."""
        major = str(self.values.get("transformers_version")).partition(".")[0]
        return int(major) if major.isdecimal() and len(major) < 4 else None

    def value(self, key: str) -> Any:
        """Return a value, or the class's default where the key is missing.

        Raises:
            ConfigError: The key is missing, and the class has no default that could be meant.
        """
        if key not in self.values and key not in self.defaults:
            raise ConfigError(f"{self.origin}: {key} is missing")
        if key in self.values:
            return self.values[key]
        if self.defaults[key] is not None:
            self.assumed[key] = self.defaults[key]
        return self.defaults[key]

    def integer(self, key: str, *, least: int = 1, most: int = LARGEST_SIZE) -> int:
        """Return a whole number."""
        value = self._stated(key)
        if _is_flag(value) or not isinstance(value, int):
            raise self._wrong(key, "a whole number")
        if not least <= value <= most:
            raise self._wrong(key, f"a number from {least} to {most}")
        return value

    @property
    def num_layers(self) -> int:
        """Layers, few enough to be listed."""
        return self.integer("num_hidden_layers", most=MOST_LAYERS)

    def integer_or_null(self, key: str) -> int | None:
        """Return a whole number from 1, or None where the file or the class says null."""
        return None if self.value(key) is None else self.integer(key)

    def number(self, key: str) -> float:
        """Return a finite number."""
        value = self._stated(key)
        if _is_flag(value) or not isinstance(value, (int, float)):
            raise self._wrong(key, "a number")
        if not abs(value) <= LARGEST_SIZE:  # nor is NaN
            raise self._wrong(key, "a number of ordinary size")
        return value

    def positive(self, key: str) -> float:
        """Return a finite number above 0."""
        value = self.number(key)
        if value <= 0:
            raise self._wrong(key, "a number above 0")
        return value

    def number_or_null(self, key: str) -> float | None:
        """Return a finite number, or None where the file or the class says null."""
        return None if self.value(key) is None else self.number(key)

    def flag(self, key: str) -> bool:
        """Return true or false; null is false, as it is to transformers."""
        value = self.value(key)
        if value is not None and not _is_flag(value):
            raise self._wrong(key, "true or false")
        return bool(value)

    def text(self, key: str) -> str:
        """Return a string."""
        value = self._stated(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def items(self, key: str, kind: type) -> list[Any] | None:
        """Return a list of items of one kind, or None where the file or the class says null."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, list) or any(type(item) is not kind for item in value):
            raise self._wrong(key, f"a list of {kind.__name__}")
        return value

    def table(self, key: str) -> dict[str, Any] | None:
        """Return an object, or None where it is null."""
        value = self.value(key)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return value

    def only(self, key: str, *allowed: Any, why: str = "no equivalent here") -> None:
        """Refuse a value outside `allowed`; a key that neither file nor class has passes.

        Raises:
            ConfigError: Names key, value and reason.
        """
        if key not in self.values and key not in self.defaults:
            return
        value = self.value(key)
        # To Python, 1 is True.
        if not any(value == one and _is_flag(value) == _is_flag(one) for one in allowed):
            raise ConfigError(f"{self.origin}: {key} = {_shown(value)} cannot be converted: {why}")

    def _stated(self, key: str) -> Any:
        value = self.value(key)
        if value is None:
            raise ConfigError(f"{self.origin}: {key} is missing, or null: state it")
        return value

    def _wrong(self, key: str, wanted: str) -> ConfigError:
        return ConfigError(f"{self.origin}: {key} = {_shown(self.value(key))}: wanted {wanted}")


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def common_model(config: HubConfig) -> dict[str, Any]:
    """Return the `[model]` values that every family states alike."""
    config.only("hidden_act", "silu", "swish", why="feed-forward networks here are SwiGLU")
    return {
        "num_layers": config.num_layers,
        "hidden_size": config.integer("hidden_size"),
        "num_heads": config.integer("num_attention_heads"),
        "vocab_size": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings"),
        "norm_epsilon": config.positive("rms_norm_eps"),
        "tie_embeddings": config.flag("tie_word_embeddings"),
        "init_std": config.positive("initializer_range"),
    }


def check_hidden_size(config: HubConfig) -> None:
    """Refuse what the classes of Llama and DeepSeek-V2 refuse, though they have sizes of heads.

    Raises:
        ConfigError: `hidden_size` cannot be dealt over the heads.
    """
    heads = config.integer("num_attention_heads")
    if config.integer("hidden_size") % heads:
        raise ConfigError(
            f"{config.origin}: hidden_size = {config.integer('hidden_size')} is no multiple of"
            f" num_attention_heads = {heads}: transformers refuses it in this family"
        )


def grouped_queries(config: HubConfig) -> dict[str, Any]:
    """Return the values of grouped-query attention."""
    is_sized = config.defaults.get("head_dim") is not None
    return {
        "num_kv_heads": config.integer_or_null("num_key_value_heads"),
        # Where the class has a size of its own, it does not know what to do with a null.
        "head_dim": config.integer("head_dim") if is_sized else config.integer_or_null("head_dim"),
    }


def common_hub(model: ModelConfig) -> dict[str, Any]:
    """Return the `config.json` values that every family states alike."""
    return {
        "num_hidden_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.kv_heads,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_seq_len,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tie_embeddings,
        "initializer_range": model.init_std,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
    }


EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Each family has one of them, and most classes take another for the same."""


def num_experts(config: HubConfig, own: str) -> int:
    """Return the number of experts; `own` is the family's key, or the others stand for it.

    Raises:
        ConfigError: None of the keys is there, or two of them differ.
    """
    stated = [key for key in (own, *EXPERT_COUNTS) if key in config.values]
    if not stated:
        others = " and ".join(key for key in EXPERT_COUNTS if key != own)
        raise ConfigError(f"{config.origin}: {own} is missing (and so are {others})")
    for key in stated[1:]:
        if config.values[key] != config.values[stated[0]]:
            raise ConfigError(f"{config.origin}: {stated[0]} and {key} mean the same and differ")
    return config.integer(stated[0], least=2)


def sparse_pattern(config: HubConfig, sparse: list[bool]) -> dict[str, int]:
    """Return `first_dense_layers` and `layer_interval` of a list of sparse layers.

    Raises:
        ConfigError: No such pair gives the list.
    """
    if not any(sparse):
        raise ConfigError(f"{config.origin}: no layer has routed experts: a dense model")
    first = sparse.index(True)
    gap = sparse[first + 1 :]
    interval = gap.index(True) + 1 if True in gap else max(1, len(gap) + 1)
    pattern = [i >= first and (i - first) % interval == 0 for i in range(len(sparse))]
    if pattern != sparse:
        raise ConfigError(
            f"{config.origin}: the sparse layers are a pattern that does not repeat: it cannot be"
            " converted"
        )
    return {"first_dense_layers": first, "layer_interval": interval}
