"""A trained model's text interface: its tokenizer, chat template and stop tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from data.chat.stored import stored_stop_ids, stored_template
from data.chat.template import ChatTemplate
from data.chat.template_loading import own_template
from data.store.reader import Store
from data.tokenization.tokenizer import Tokenizer, local_tokenizer
from moe.config.locating import HUB_DIRECTORY, tokenizer_file
from moe.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TextInterface:
    """How texts become prompts, and what ends a continuation."""

    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    prefix: tuple[int, ...] = ()
    """Tokens before every text (a converted model's beginning-of-text token)."""
    chat: ChatTemplate | None = field(default=None)
    """The chat template, where one is known."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return texts as prompts."""
        return [[*self.prefix, *ids.tolist()] for ids in self.tokenizer.encode_batch(texts)]

    def encode_questions(self, texts: Sequence[str]) -> list[list[int]]:
        """Return user messages, each as a prompt for the answer.

        Raises:
            ConfigError: No chat template is known.
        """
        if self.chat is None:
            raise ConfigError(
                "--chat: no chat template is known: give a conversation store with --store"
                " (`moe data chat` makes one), or leave --chat out"
            )
        chat = self.chat
        return [chat.encode_prompt([{"role": "user", "content": t}]).tolist() for t in texts]


def text_interface_of(path: Path, store: Path | None = None) -> TextInterface:
    """Return the text interface of a run or converted model, or of a given store.

    Raises:
        ConfigError: No tokenizer is known.
        DataError: It is damaged.
    """
    if store is not None:
        return _of_store(Store.open(store))
    file = tokenizer_file(path)
    if file is None:
        raise ConfigError(f"{path}: no tokenizer is known: give a store with --store")
    if file.parent.name == HUB_DIRECTORY:
        return _of_hub(file.parent)
    return _of_store(Store.open(file.parent))


def _of_store(store: Store) -> TextInterface:
    return TextInterface(
        tokenizer=store.tokenizer, stop_ids=stored_stop_ids(store), chat=stored_template(store)
    )


def _of_hub(folder: Path) -> TextInterface:
    tokenizer = local_tokenizer(folder)
    stops = {tokenizer.info.eos_id}
    settings = folder / "generation_config.json"
    if settings.is_file():
        ends = json.loads(settings.read_text(encoding="utf-8")).get("eos_token_id")
        stops |= set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    prefix = tokenizers.Tokenizer.from_str(tokenizer.text).encode("").ids
    form = own_template(tokenizer, folder)
    if form is not None:
        stops |= form.stop_ids
    return TextInterface(
        tokenizer=tokenizer, stop_ids=frozenset(stops), prefix=tuple(prefix), chat=form
    )
