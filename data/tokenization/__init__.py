"""Text to token ids: tokenizers, and a cache of encoded pieces of text."""
