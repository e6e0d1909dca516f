"""Continue prompts with a trained model: greedy or sampled, many prompts at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moe.errors import ConfigError
from moe.model.incremental_decoding import incremental_decoder


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    """Logits are divided by this; 0: always the likeliest token (greedy)."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together have this probability (arXiv:1904.09751)."""
    seed: int = 0
    """Prompt i draws from a random stream of its own, whatever else is in its batch."""


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What was generated after one prompt."""

    tokens: list[int]
    """New tokens, without the stop token."""
    stopped: bool
    """A stop token came (else `max_new_tokens` was reached)."""


@torch.no_grad()
def generate(  # noqa: PLR0913 - every setting of a generation
    chunk: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_ids: frozenset[int],
    max_seq_len: int,
    vocab_size: int | None = None,
    batch_size: int = 16,
) -> list[Continuation]:
    """Continue each prompt (token ids) until a stop token or `sampling.max_new_tokens`.

    Args:
        chunk: The whole model (no parallelism), in evaluation mode.
        prompts: One or more token ids each.
        sampling: How tokens are chosen.
        stop_ids: Tokens that end a continuation.
        max_seq_len: Longest sequence the model is made for.
        vocab_size: Only ids below this are chosen; None: all rows of the LM head.
        batch_size: Prompts continued at once.

    Raises:
        ConfigError: A prompt is empty, or too long with what is to follow.
    """
    _check_lengths(prompts, sampling.max_new_tokens, max_seq_len)
    # Prompts of like length go together: less padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    done: dict[int, Continuation] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        choosers = [_Chooser(sampling, row, vocab_size) for row in rows]
        batch = _continue_batch(chunk, [prompts[row] for row in rows], choosers, stop_ids)
        done |= dict(zip(rows, batch, strict=True))
    return [done[i] for i in range(len(prompts))]


def _check_lengths(prompts: Sequence[Sequence[int]], new: int, max_seq_len: int) -> None:
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise ConfigError(f"prompt {number} is empty: give it at least one token")
        if len(prompt) + new > max_seq_len:
            raise ConfigError(
                f"prompt {number} has {len(prompt)} tokens; with {new} new ones it exceeds the"
                f" model's max_seq_len={max_seq_len}: shorten it or lower --max-new-tokens"
            )


class _Chooser:
    """Chooses one sequence's next tokens."""

    def __init__(self, sampling: Sampling, row: int, vocab_size: int | None) -> None:
        self._sampling = sampling
        self._vocab_size = vocab_size
        self._random = torch.Generator().manual_seed(sampling.seed * 1_000_003 + row)

    @property
    def max_new_tokens(self) -> int:
        return self._sampling.max_new_tokens

    def choose(self, logits_v: Tensor) -> int:
        logits_v = logits_v[: self._vocab_size]
        temperature = self._sampling.temperature
        if temperature == 0:
            return int(logits_v.argmax())
        probs, ids = torch.softmax(logits_v.double().cpu() / temperature, 0).sort(descending=True)
        cumulative = probs.cumsum(0)
        # The nucleus: the fewest likeliest tokens whose probability reaches top_p.
        size = int((cumulative < self._sampling.top_p).sum()) + 1
        size = min(size, len(probs))
        draw = torch.rand((), generator=self._random, dtype=torch.float64) * cumulative[size - 1]
        return int(ids[min(int((cumulative < draw).sum()), size - 1)])


def _continue_batch(
    chunk: Any,
    prompts: Sequence[Sequence[int]],
    choosers: Sequence[_Chooser],
    stop_ids: frozenset[int],
) -> list[Continuation]:
    device = next(chunk.parameters()).device
    longest, new = max(map(len, prompts)), choosers[0].max_new_tokens
    paddings = [longest - len(prompt) for prompt in prompts]
    rows = [
        [0] * pad + list(map(int, prompt)) for pad, prompt in zip(paddings, prompts, strict=True)
    ]
    tokens = torch.tensor(rows, device=device)
    chosen: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    with incremental_decoder(chunk, paddings, longest + new) as model:
        for _ in range(new):
            logits = model.next_logits(tokens)
            for row, chooser in enumerate(choosers):
                if stopped[row]:
                    continue
                choice = chooser.choose(logits[row])
                stopped[row] = choice in stop_ids
                if not stopped[row]:
                    chosen[row].append(choice)
            if all(stopped):
                break
            last = [row[-1] if row else 0 for row in chosen]
            tokens = torch.tensor(last, device=device)[:, None]
    return [Continuation(tokens=t, stopped=s) for t, s in zip(chosen, stopped, strict=True)]
