"""The token ids and special tokens that an exported model states, null where there is none.

What is absent becomes a default of its class in transformers: 1 and 2 for Llama and Mixtral, which
are ordinary tokens of most vocabularies.
"""

from pathlib import Path
from typing import Any

from data.tokenization.hub_folder import (
    GENERATION_FILE,
    hub_json,
    named_token,
    tokenizer_settings,
)
from moe.evaluation.text_interface import TextInterface

TokenIds = dict[str, Any]
"""`bos_token_id`, `eos_token_id` (one, or a list) and `pad_token_id`."""
KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def stated_ids(folder: Path | None) -> TokenIds:
    """Return the ids that the original model's own files state."""
    ids: TokenIds = dict.fromkeys(KEYS)
    if folder is not None:
        for name in (GENERATION_FILE, "config.json"):
            values = hub_json(folder, name)
            ids |= {key: values[key] for key in KEYS if _is_ids(values.get(key))}
    return ids


def _is_ids(value: Any) -> bool:
    ids = value if isinstance(value, list) else [value]
    return bool(ids) and all(type(index) is int and index >= 0 for index in ids)


def token_ids(language: TextInterface, folder: Path | None) -> TokenIds:
    """Return the ids of a text interface: all that end an answer, the document's end first."""
    stated = stated_ids(folder)
    end = language.tokenizer.info.eos_id
    ends = [end, *sorted(language.stop_ids - {end})]
    tokens = special_tokens(language, folder)
    named = {key: language.tokenizer.token_id(tokens[key.removesuffix("_id")]) for key in KEYS}
    known = {key: index for key, index in named.items() if index is not None}
    return stated | known | {"eos_token_id": ends if len(ends) > 1 else end}


def special_tokens(language: TextInterface, folder: Path | None) -> dict[str, str | None]:
    """Return the tokens that the tokenizer's settings name; only such as its vocabulary has."""
    tokenizer = language.tokenizer
    settings = {} if folder is None else tokenizer_settings(folder)
    if language.chat is not None:
        settings |= language.chat.names
    pad_token = named_token(settings, "pad_token")
    return {
        "bos_token": tokenizer.token(language.bos_id),
        "eos_token": tokenizer.info.eos_token,
        "pad_token": pad_token if tokenizer.token_id(pad_token) is not None else None,
    }
