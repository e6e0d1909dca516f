"""How likely a model finds given texts: log-probabilities of continuations.

Shapes: B sequences, S tokens of the longest, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from moe.evaluation.loading import LoadedModel

MAX_LOGITS = 2**27
"""Most logits of one forward pass, as FP32 512 MiB."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a model gives one continuation."""

    log_probability: float
    """Nats."""
    is_greedy: bool
    """Whether every token is the likeliest one."""


@torch.no_grad()
def score_continuations(
    model: LoadedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[Score]:
    """Return the score of each continuation after its context (one token at least).

    What does not fit the model's `max_seq_len` is cut from the context's beginning.
    """
    rows = [_fitted(context, continuation, model) for context, continuation in pairs]
    scores: dict[int, Score] = {}
    most = MAX_LOGITS // model.config.vocab_size
    for indices in _batches([len(tokens) for tokens, _ in rows], most):
        for index, score in zip(indices, _scored(model, [rows[i] for i in indices]), strict=True):
            scores[index] = score
    return [scores[i] for i in range(len(rows))]


def _fitted(
    context: Sequence[int], continuation: Sequence[int], model: LoadedModel
) -> tuple[list[int], int]:
    """Return the tokens to read, and how many of them are the continuation's."""
    assert context, "a context has at least one token"
    tokens = [*context, *continuation][-model.config.max_seq_len - 1 :]
    return tokens, min(len(continuation), len(tokens) - 1)


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield indices of rows in batches of similar length, longest first.

    A batch has at most `most` tokens, padding included.
    """
    batch: list[int] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * longest > most:
            yield batch
            batch = []
        longest = longest if batch else lengths[index]
        batch.append(index)
    if batch:
        yield batch


def _scored(model: LoadedModel, rows: Sequence[tuple[list[int], int]]) -> Iterator[Score]:
    longest = max(len(tokens) for tokens, _ in rows) - 1
    padded = [tokens + [0] * (longest + 1 - len(tokens)) for tokens, _ in rows]
    tokens_bs = torch.tensor(padded, device=model.device)
    positions = torch.arange(longest, device=model.device).expand(len(rows), longest)
    # Padding lies behind every token that counts: a causal model does not see it, and the mask
    # keeps it from taking experts' capacity.
    lengths = torch.tensor([len(tokens) - 1 for tokens, _ in rows], device=model.device)
    padding_mask = positions >= lengths[:, None]
    logits_bsv = model.chunk(tokens_bs[:, :-1], positions, None, padding_mask=padding_mask)
    for (tokens, count), logits_sv, labels_s in zip(
        rows, logits_bsv, tokens_bs[:, 1:], strict=True
    ):
        here = slice(len(tokens) - 1 - count, len(tokens) - 1)
        logs_cv = logits_sv[here].float().log_softmax(dim=-1)
        labels_c = labels_s[here]
        yield Score(
            log_probability=float(logs_cv.gather(1, labels_c[:, None]).double().sum()),
            is_greedy=bool((logs_cv.argmax(dim=-1) == labels_c).all()),
        )
