"""A trained model's text interface: its tokenizer, chat template and stop tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.chat.stored import stored_stop_ids, stored_template
from data.chat.template import ChatTemplate
from data.chat.template_loading import own_template
from data.store.manifest import Manifest
from data.store.reader import Store
from data.tokenization.hub_folder import (
    GENERATION_FILE,
    hub_json,
    named_token,
    tokenizer_settings,
)
from data.tokenization.tokenizer import Tokenizer, local_tokenizer
from moe.config.locating import HUB_DIRECTORY, hub_folder, tokenizer_file
from moe.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TextInterface:
    """How texts become prompts, and what ends a continuation."""

    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    bos_token: str | None = None
    """The token that begins a text, where the tokenizer names one; not all write it."""
    chat: ChatTemplate | None = field(default=None)
    """The chat template, where one is known."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens before every text but chats, whose template writes them."""
        return self.tokenizer.prefix_ids

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text: the one that is named, or written before every text."""
        named = None if self.bos_token is None else self.tokenizer.token_id(self.bos_token)
        return self.prefix[0] if named is None and self.prefix else named

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
    folder = hub_folder(path)
    if store is not None:
        return _of_store(store, folder, is_of_run=False)
    file = tokenizer_file(path)
    if file is None:
        raise ConfigError(f"{path}: no tokenizer is known: give a store with --store")
    if file.parent.name == HUB_DIRECTORY:
        return _of_hub(file.parent)
    return _of_store(file.parent, folder, is_of_run=True)


def _of_store(path: Path, folder: Path | None, *, is_of_run: bool) -> TextInterface:
    """Return what a store says, and the small files of the model that training began with.

    A text ends also at the special tokens that this model's settings state, such as gpt-oss's end
    of a tool call, unless the store ends documents otherwise.

    Only the tokenizer and the manifest are read: the tokens may be elsewhere by now.

    Args:
        path: The store.
        folder: The small files, where there are any.
        is_of_run: Whether the run was trained on the store: they have the same tokenizer. What
            the files say of tokens is then right, and so is their chat template where the store
            has none.
    """
    store = Store(path, Manifest.read(path))
    tokenizer, form = store.tokenizer, stored_template(store)
    settings = {} if folder is None else tokenizer_settings(folder)
    stops = stored_stop_ids(store)
    if folder is not None and is_of_run:
        stated = _stated_ends(folder)
        if tokenizer.info.eos_id in stated:
            stops |= stated & set(tokenizer.added_tokens.values())
    if form is not None:
        settings |= form.names
    elif folder is not None and is_of_run:
        form = own_template(tokenizer, folder)
        stops |= frozenset() if form is None else form.stop_ids
    bos_token = named_token(settings, "bos_token")
    return TextInterface(tokenizer=tokenizer, stop_ids=stops, bos_token=bos_token, chat=form)


def _of_hub(folder: Path) -> TextInterface:
    tokenizer = local_tokenizer(folder)
    form = own_template(tokenizer, folder)
    stops = {tokenizer.info.eos_id, *_stated_ends(folder)}
    return TextInterface(
        tokenizer=tokenizer,
        stop_ids=frozenset(stops if form is None else stops | form.stop_ids),
        bos_token=named_token(tokenizer_settings(folder), "bos_token"),
        chat=form,
    )


def _stated_ends(folder: Path) -> set[int]:
    """Return the tokens that end a text by the model's settings of generation, else by itself."""
    for name in (GENERATION_FILE, "config.json"):
        ends: Any = hub_json(folder, name).get("eos_token_id")
        if ends is not None:
            some = ends if isinstance(ends, list) else [ends]
            if not all(type(end) is int for end in some):
                raise ConfigError(f"{folder / name}: eos_token_id = {ends!r}: give token ids")
            return set(some)
    return set()
