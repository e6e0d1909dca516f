"""One accelerator as the planner sees it: rates, memory, and what its kernels reach.

Cards are TOML files in `parallel/hardware/cards/`, each number with its source. A user's own card
is such a file too, given by its path.
"""

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from parallel.errors import ParallelError
from parallel.frozen_model import FrozenModel
from parallel.hardware.kernel_parameters import KernelParameters, Positive
from parallel.hardware.links import Links
from parallel.hardware.power import Power

Count = Annotated[int, Field(gt=0)]


class Rates(FrozenModel):
    """Rates of one card: dense, without structured sparsity; published unless its source says."""

    bf16: Positive
    """FLOP/s of matrix products in BF16."""
    fp8: Positive | None = None
    """FLOP/s of matrix products in FP8; absent: the card has none."""
    nvfp4: Positive | None = None
    """FLOP/s of matrix products in NVFP4; absent: the card has none."""
    fp32: Positive
    """FLOP/s in FP32."""
    memory_bytes_per_s: Positive
    """Memory bandwidth, bytes/s."""
    sms: Count
    """Streaming multiprocessors (AMD: compute units; CPU: cores)."""
    l2_bytes: Count
    """Last-level cache, bytes."""
    board_watts: Positive | None = None
    """Power limit of the board as it is sold, W; absent: unknown, and nothing is held back."""


class Card(FrozenModel):
    """One accelerator."""

    name: str
    aliases: tuple[str, ...]
    """Other names, those that NVML prints among them; case, spaces, `-` and `_` do not matter."""
    architecture: str
    """ampere, hopper, blackwell, cdna3, cpu."""
    memory_bytes: Count
    """Memory that programs can have, bytes."""
    rates: Rates
    sources: dict[str, str]
    """Where each rate and the memory's size come from."""
    kernels_of: str | None = None
    """The card whose `[kernels]` these are, but for those the file has itself."""
    kernels: KernelParameters
    links: Links | None = None
    """How it is linked to others; absent: unknown."""
    power: Power | None = None
    """What it draws; absent: unknown."""

    @model_validator(mode="after")
    def _every_number_has_its_source(self) -> Self:
        rates = {name for name, value in self.rates if value is not None}
        missing = (rates | {"memory_bytes"}) - set(self.sources)
        if missing:
            raise ValueError(f"[sources] says nothing of {', '.join(sorted(missing))}")
        return self


def card_names() -> list[str]:
    """Return the names of the cards that are shipped, sorted."""
    return sorted(path.name.removesuffix(".toml") for path in _folder() if path.name != "__init__")


def find_card(name: str) -> Card | None:
    """Return the shipped card of a name, an alias or a device's name; None where there is none."""
    return _shipped().get(_normal(name))


def is_named(card: Card, name: str) -> bool:
    """Return whether a card is called so: its name, or an alias."""
    return _normal(name) in {_normal(one) for one in (card.name, *card.aliases)}


def load_card(name: str) -> Card:
    """Return the card of a name, an alias, a device's name, or a path to a TOML file."""
    if name.endswith(".toml"):
        return _read_path(Path(name))
    card = find_card(name)
    if card is None:
        raise ParallelError(
            f"gpu {name!r}: no such card; choose {', '.join(card_names())}, "
            "or give the path of a TOML file like those in parallel/hardware/cards/"
        )
    return card


def _normal(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in " -_")


@cache
def _shipped() -> dict[str, Card]:
    cards = [_validated(_shipped_values(name), name) for name in card_names()]
    return {_normal(name): card for card in cards for name in (card.name, *card.aliases)}


def _folder() -> list[Any]:
    folder = files("parallel.hardware") / "cards"
    return [path for path in folder.iterdir() if path.name.endswith(".toml")]


def _shipped_values(name: str) -> dict[str, Any]:
    text = (files("parallel.hardware") / "cards" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _read_path(path: Path) -> Card:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ParallelError(f"gpu {str(path)!r}: cannot be read as a card: {error}") from error
    return _validated(values, str(path))


def _validated(values: dict[str, Any], name: str) -> Card:
    """Return the card of a file's values, with the kernels of the card that it names."""
    lender = values.get("kernels_of")
    if lender is not None:
        if lender not in card_names():
            raise ParallelError(
                f"{name}: kernels_of = {lender!r}: no such card; choose {', '.join(card_names())}"
            )
        lent = _shipped_values(lender)["kernels"]
        values = {**values, "kernels": {**lent, **values.get("kernels", {})}}
    try:
        return Card.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "card"
        raise ParallelError(f"{name}: {field}: {first['msg']}") from error
