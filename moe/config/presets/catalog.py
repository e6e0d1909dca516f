"""Shipped models: one TOML file each, with the card's figures and their source."""

import difflib
import re
import tomllib
from importlib import resources
from typing import Any, Literal

from data.frozen_model import FrozenModel
from moe.errors import ConfigError

NOT_EXPRESSIBLE = {
    "qwen3-next": "three of four layers are gated DeltaNet (linear attention), which megatron-core"
    " builds only where flash-linear-attention's GPU kernels are installed, and its softmax"
    " attention has an output gate: [model] expresses neither"
}
"""Models that people ask for by name, and why they are not shipped."""


class Card(FrozenModel):
    """The `[card]` table: what the model's publishers say about it, and where."""

    title: str
    """Name for people."""
    sources: tuple[str, ...]
    """Where hyper-parameters and counts were read."""
    total_parameters: str | None = None
    """As printed, for example `30.5B`; none for models of our own."""
    active_parameters: str | None = None
    """As printed."""
    counts: Literal["all", "without_input_embedding", "without_embeddings"] = "all"
    """Which embeddings the printed counts hold: both in total and active; both in total, the
    input embedding not in active; neither."""
    aliases: tuple[str, ...] = ()
    """Other names, as tables of published speeds write them."""
    note: str | None = None


def preset_names() -> list[str]:
    """Return the names of all shipped models, sorted."""
    files = resources.files("moe.config.presets").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def resolve_preset(name: str) -> str:
    """Return the preset meant by a name or alias.

    Case, blanks, `-`, `_` and `.` do not matter, nor does a remark in parentheses: published
    tables write `Qwen3_235B_a22B (tokendrop)`.

    Raises:
        ConfigError: No such preset; names the nearest.
    """
    names = preset_names()
    if name in names:
        return name
    known = {_key(preset): preset for preset in names}
    known |= {_key(alias): preset for preset in names for alias in read_card(preset).aliases}
    if preset := known.get(_key(name)):
        return preset
    if reason := why_not(name):
        raise ConfigError(f"no preset {name!r}: {reason}; the nearest shipped is qwen3-30b-a3b")
    near = difflib.get_close_matches(_key(name), known, n=1, cutoff=0.4)
    hint = f"did you mean {known[near[0]]}?" if near else f"there are {', '.join(names)}"
    raise ConfigError(f"no preset {name!r}: {hint} (a file needs the ending .toml)")


def why_not(name: str) -> str | None:
    """Return why a model cannot be expressed, where that is known; `name` as anyone writes it."""
    reasons = (why for model, why in NOT_EXPRESSIBLE.items() if _key(name).startswith(_key(model)))
    return next(reasons, None)


def preset_model(name: str) -> dict[str, Any]:
    """Return the `[model]` table of a preset (name or alias), its own name filled in."""
    preset = resolve_preset(name)
    return {**_read(preset)["model"], "preset": preset}


def read_card(name: str) -> Card:
    """Return the `[card]` table of a preset."""
    return Card.model_validate(_read(name)["card"])


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(
        (resources.files("moe.config.presets") / f"{name}.toml").read_text(encoding="utf-8")
    )


def _key(name: str) -> str:
    return re.sub(r"[\s_.-]", "", re.sub(r"\(.*?\)", "", name)).casefold()
