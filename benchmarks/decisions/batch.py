"""The batch of a run that nobody stated."""

from benchmarks.laws.step_law import step_law_batch_tokens

LARGEST_STEP_TOKENS = 2.0**24
"""Llama 3 405B's, at its end (arXiv 2407.21783, section 3.4.1)."""
CARDS_A_SEQUENCE = 8
"""Cards that share a sequence at most, where the rule gives fewer sequences than that needs."""


def step_tokens(tokens: float) -> float:
    """Return the tokens of a step that a run of so many tokens learns best from."""
    return min(LARGEST_STEP_TOKENS, step_law_batch_tokens(max(tokens, 1.0)))


def global_batch_size(tokens: float, num_gpus: int, seq_len: int) -> int:
    """Return sequences of a step near that rule which data parallelism can share evenly.

    It is the number of cards times or divided by a power of two, so that every legal number of
    replicas divides it.
    """
    wanted = max(1.0, step_tokens(tokens) / seq_len)
    size = num_gpus
    while size * 2 <= wanted:
        size *= 2
    least = max(1.0, num_gpus / CARDS_A_SEQUENCE)
    while size % 2 == 0 and size // 2 >= max(wanted, least):
        size //= 2
    return size
