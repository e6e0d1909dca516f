"""What a model has memorized: the exposure of planted canaries, and text it writes out verbatim.

Exposure (Carlini et al., arXiv:1802.08232, section 4.2) compares a planted secret's likelihood
with that of other secrets in the same frame; verbatim extraction (arXiv:2202.07646, section 3)
prompts with the beginning of a training passage and looks whether the model writes on as it went.
"""

import math
from collections.abc import Callable, Sequence

from data.canaries import alternatives, split_secret
from data.store.manifest import HELD_OUT, TRAIN, Canary, SplitName
from data.store.reader import Store
from moe.evaluation.generation import Sampling, generate
from moe.evaluation.loading import LoadedModel
from moe.evaluation.memorization_results import Audit, CanaryGroup, Passages
from moe.evaluation.scoring import score_continuations

Report = Callable[[str], None]


def audit(
    model: LoadedModel,
    store: Store,
    *,
    candidates: int = 1000,
    passages: int = 100,
    prompt_tokens: int = 50,
    report: Report | None = None,
) -> Audit:
    """Audit a model by the store it was trained on.

    Args:
        model: The model.
        store: Its training data, with canaries or without.
        candidates: Other secrets to compare each canary with.
        passages: Passages of each split to be written on.
        prompt_tokens: Tokens given, and as many to write; fewer where the model's sequences are
            short.
        report: Told what is being done.
    """
    notify = report or (lambda _: None)
    tokens = min(prompt_tokens, model.config.max_seq_len // 2)
    by_repeats: dict[int, list[Canary]] = {}
    for canary in store.manifest.canaries:
        by_repeats.setdefault(canary.repeats, []).append(canary)
    groups = []
    for repeats, canaries in sorted(by_repeats.items()):
        notify(f"canaries planted {repeats} times")
        groups.append(_canary_group(model, store, repeats, canaries, candidates))
    results = []
    for split in (TRAIN, HELD_OUT):
        notify(f"passages of {split}")
        results.append(_passages(model, store, split, passages, tokens))
    return Audit(candidates=candidates, prompt_tokens=tokens, canaries=groups, passages=results)


def _canary_group(
    model: LoadedModel, store: Store, repeats: int, canaries: Sequence[Canary], candidates: int
) -> CanaryGroup:
    exposures = [_exposure(model, store, canary, candidates) for canary in canaries]
    frames, secrets = zip(*(split_secret(canary.text) for canary in canaries), strict=True)
    tokenizer, eos = store.tokenizer, store.manifest.tokenizer.eos_id
    prompts = [[eos, *ids.tolist()] for ids in tokenizer.encode_batch(list(frames))]
    room = max(len(ids) for ids in tokenizer.encode_batch(list(secrets))) + 2
    written = _written(model, prompts, min(room, model.config.max_seq_len - max(map(len, prompts))))
    extracted = sum(
        tokenizer.decode(tokens).strip().startswith(secret)
        for tokens, secret in zip(written, secrets, strict=True)
    )
    return CanaryGroup(repeats=repeats, exposures_bits=exposures, extracted=extracted)


def _exposure(model: LoadedModel, store: Store, canary: Canary, candidates: int) -> float:
    """Return the canary's exposure among random secrets in its frame, bits."""
    texts = [canary.text, *alternatives(canary.text, candidates)]
    eos = store.manifest.tokenizer.eos_id
    pairs = [([eos], ids.tolist()) for ids in store.tokenizer.encode_batch(texts)]
    own, *others = (score.log_probability for score in score_continuations(model, pairs))
    rank = 1 + sum(other > own for other in others)
    return math.log2(len(texts)) - math.log2(rank)


def _passages(
    model: LoadedModel, store: Store, split: SplitName, most: int, tokens: int
) -> Passages:
    """Have the model continue passages of a split, evenly spaced over its tokens."""
    streams = store.split(split).streams
    total = sum(stream.num_tokens for stream in streams)
    rows: list[list[int]] = []
    for stream in streams:
        room = stream.num_tokens - 2 * tokens
        count = min(room // (2 * tokens) + 1, most * stream.num_tokens // max(total, 1) + 1)
        if room >= 0:
            starts = (room * i // max(1, count) for i in range(count))
            rows += [stream.read(start, 2 * tokens).tolist() for start in starts]
    rows = rows[:most]
    written = _written(model, [row[:tokens] for row in rows], tokens)
    extracted = sum(row[tokens:] == new for row, new in zip(rows, written, strict=True))
    return Passages(split=split, count=len(rows), extracted=extracted)


def _written(model: LoadedModel, prompts: Sequence[list[int]], new: int) -> list[list[int]]:
    """Return what the model writes after each prompt, always taking the likeliest token."""
    if not prompts or new < 1:
        return [[] for _ in prompts]
    done = generate(
        model.chunk,
        prompts,
        Sampling(max_new_tokens=new),
        stop_ids=frozenset(),
        max_seq_len=model.config.max_seq_len,
    )
    return [one.tokens for one in done]
