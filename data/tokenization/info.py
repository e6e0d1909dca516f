"""What a store says about the tokenizer that made its token ids."""

from typing import Literal

from data.frozen_model import FrozenModel

TOKENIZER_FILE = "tokenizer.json"
"""File name of a tokenizer, in a store and beside a model."""


class TokenizerInfo(FrozenModel):
    """Which tokenizer made the token ids."""

    kind: Literal["bytes", "huggingface"]
    """UTF-8 bytes, or a `tokenizer.json` of the tokenizers library (trained here or given)."""
    vocab_size: int
    """One more than the largest id."""
    eos_id: int
    eos_token: str
    special_tokens: dict[str, int]
    sha256: str
    """Hash of `tokenizer.json` as stored."""
