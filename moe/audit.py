"""What a model has memorised: the exposure of planted canaries, and text it writes out verbatim.

Exposure (Carlini et al., arXiv:1802.08232, section 4.2) compares a planted secret's likelihood
with that of other secrets in the same frame; verbatim extraction (arXiv:2202.07646, section 3)
prompts with the beginning of a training passage and looks whether the model writes on as it went.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.canaries import alternatives, split_secret
from data.manifest import HELD_OUT, TRAIN, Canary, SplitName
from data.store import Store
from moe.generate import Sampling, generate
from moe.loaded_model import LoadedModel
from moe.score import score_continuations

CHANCE_BITS = 1 / math.log(2)
"""Mean exposure of a secret that was never seen, bits: that of a uniform rank."""
SIGNIFICANT = 0.01

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CanaryGroup:
    """Canaries planted equally often."""

    repeats: int
    exposures_bits: list[float]
    extracted: int
    """Whose secret the model writes out, given the frame."""

    @property
    def count(self) -> int:
        """Canaries."""
        return len(self.exposures_bits)

    @property
    def mean_bits(self) -> float:
        """Mean exposure."""
        return sum(self.exposures_bits) / self.count

    @property
    def p_value(self) -> float:
        """Chance of such exposures if nothing was memorised (Fisher's combined test).

        A rank among the candidates is a p-value whose negative binary logarithm is the exposure;
        the statistic has a chi-squared distribution with 2n degrees of freedom.
        """
        half = math.log(2) * sum(self.exposures_bits)
        terms = (
            k * math.log(half) - math.lgamma(k + 1) if half else 0.0 for k in range(self.count)
        )
        return min(1.0, sum(math.exp(term - half) for term in terms))

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "repeats": self.repeats,
            "canaries": self.count,
            "mean_exposure_bits": self.mean_bits,
            "exposures_bits": self.exposures_bits,
            "p_value": self.p_value,
            "extracted": self.extracted,
        }


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Passages of a split, and how many the model writes on verbatim."""

    split: SplitName
    count: int
    extracted: int

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the rate (Wilson's score interval)."""
        if not self.count:
            return 0.0, 1.0
        z2, n, rate = 1.96**2, self.count, self.extracted / self.count
        centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
        half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        low, high = self.interval
        return {
            "split": self.split,
            "passages": self.count,
            "extracted": self.extracted,
            "rate": self.extracted / self.count if self.count else None,
            "rate_95": [low, high] if self.count else None,
        }


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found."""

    candidates: int
    """Other secrets that each canary was compared with."""
    prompt_tokens: int
    """Tokens that the model was given of each passage, and had to write."""
    canaries: list[CanaryGroup]
    passages: list[Passages]

    @property
    def most_bits(self) -> float:
        """Largest exposure that so many candidates can show."""
        return math.log2(self.candidates + 1)

    def as_json(self) -> dict[str, Any]:
        """Return plain values, the finding in words among them."""
        return {
            "candidates": self.candidates,
            "most_exposure_bits": self.most_bits,
            "chance_exposure_bits": CHANCE_BITS,
            "canaries": [group.as_json() for group in self.canaries],
            "prompt_tokens": self.prompt_tokens,
            "passages": [some.as_json() for some in self.passages],
            "finding": finding(self),
        }


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
        prompt_tokens: Tokens given and wanted; fewer where the model's sequences are short.
        report: Told what is being done.
    """
    tell = report or (lambda _: None)
    tokens = min(prompt_tokens, model.config.max_seq_len // 2)
    by_repeats: dict[int, list[Canary]] = {}
    for canary in store.manifest.canaries:
        by_repeats.setdefault(canary.repeats, []).append(canary)
    groups = []
    for repeats, canaries in sorted(by_repeats.items()):
        tell(f"canaries planted {repeats} times")
        groups.append(_canary_group(model, store, repeats, canaries, candidates))
    found = []
    for split in (TRAIN, HELD_OUT):
        tell(f"passages of {split}")
        found.append(_passages(model, store, split, passages, tokens))
    return Audit(candidates=candidates, prompt_tokens=tokens, canaries=groups, passages=found)


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
    """Let the model write on passages of a split, evenly spaced over its tokens."""
    streams = store.split(split).streams
    total = sum(stream.num_tokens for stream in streams)
    rows: list[list[int]] = []
    for stream in streams:
        room = stream.num_tokens - 2 * tokens
        wanted = min(room // (2 * tokens) + 1, most * stream.num_tokens // max(total, 1) + 1)
        if room >= 0:
            places = (room * i // max(1, wanted) for i in range(wanted))
            rows += [stream.read(place, 2 * tokens).tolist() for place in places]
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


def finding(found: Audit) -> str:
    """Return what an audit found, in words."""
    said = [_group_text(group, found) for group in found.canaries]
    if not said:
        said = ["The store has no canaries: exposure is not measured."]
    train, held_out = found.passages
    low, high = train.interval
    text = (
        f"Of {train.count} training passages the model writes {train.extracted} on verbatim for"
        f" {found.prompt_tokens} tokens ({low:.1%} to {high:.1%})"
    )
    if held_out.count:
        text += f", of {held_out.count} held-out ones {held_out.extracted}"
    return " ".join([*said, f"{text}."])


def _group_text(group: CanaryGroup, found: Audit) -> str:
    times = {0: "never planted", 1: "planted once"}.get(
        group.repeats, f"planted {group.repeats} times"
    )
    verdict = "memorised" if group.p_value < SIGNIFICANT else "no sign of memorisation"
    if group.repeats == 0:
        verdict = "as chance has it" if group.p_value >= SIGNIFICANT else "an odd control"
    return (
        f"Canaries {times}: exposure {group.mean_bits:.1f} bits (chance {CHANCE_BITS:.1f}, most"
        f" {found.most_bits:.1f}), {verdict} (p = {group.p_value:.2g}); {group.extracted} of"
        f" {group.count} written out verbatim."
    )
