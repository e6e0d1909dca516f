"""The byte tokenizer as a `tokenizer.json` that every reader of that format accepts.

Byte-level BPE without merges: the vocabulary is the byte alphabet (one printable character a byte,
as in GPT-2), each with its byte as id, and the end-of-document token follows. Without merges no
split of the text matters, so that ids are those of UTF-8 bytes.
"""

import json
from typing import Any

NUM_BYTES = 256
_PRINTABLE = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))


def byte_level_json(eos_token: str) -> str:
    """Return the `tokenizer.json` whose ids are UTF-8 bytes, with id 256 ending a document."""
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False,
    }  # fmt: skip
    end: dict[str, Any] = {"id": NUM_BYTES, "content": eos_token, "special": True}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    values: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(_byte_alphabet())},
            "merges": [],
        },
    }
    return json.dumps(values, ensure_ascii=False, indent=1) + "\n"


def eos_of_byte_level_json(text: str) -> str | None:
    """Return the end-of-document token of a text that `byte_level_json` made; None of another."""
    if len(text) > 2 * len(byte_level_json("")):  # spares reading a large vocabulary twice
        return None
    try:
        eos_token = json.loads(text)["added_tokens"][0]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    is_ours = isinstance(eos_token, str) and text == byte_level_json(eos_token)
    return eos_token if is_ours else None


def _byte_alphabet() -> list[str]:
    """Return the character that stands for each byte: itself where printable, else one beyond."""
    printable = [byte for some in _PRINTABLE for byte in some]
    hidden = [byte for byte in range(NUM_BYTES) if byte not in printable]
    beyond = {byte: NUM_BYTES + position for position, byte in enumerate(hidden)}
    return [chr(beyond.get(byte, byte)) for byte in range(NUM_BYTES)]
