"""Generation: with a cache and padding the same as token by token, alone, from scratch."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.distributed import RankFailedError, run_ranks
from tests.support.trained_runs import ATTENTION_KINDS, built, command, train_run

PROMPTS = [[7, 3, 9, 100, 4, 8, 5, 1, 77], [5], [200, 17, 3, 3]]
NEW = 12


def _greedy(changes: dict[str, Any]) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Continue in one padded batch, one by one, and by whole forward passes without a cache."""
    import torch

    from moe.evaluation.generation import Sampling, generate

    never = {"stop_ids": frozenset[int](), "max_seq_len": 64}
    sampling = Sampling(max_new_tokens=NEW)
    with built(changes) as chunk, torch.no_grad():
        together = [c.tokens for c in generate(chunk, PROMPTS, sampling, **never)]
        alone = [generate(chunk, [p], sampling, **never)[0].tokens for p in PROMPTS]
        from_scratch = []
        for prompt in PROMPTS:
            tokens = list(prompt)
            for _ in range(NEW):
                ids = torch.tensor([tokens])
                logits = chunk(ids, torch.arange(len(tokens))[None], None)
                tokens.append(int(logits[0, -1].argmax()))
            from_scratch.append(tokens[len(prompt) :])
    return together, alone, from_scratch


@pytest.mark.engine
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_cache_and_padding_change_nothing(kind: str) -> None:
    together, alone, from_scratch = run_ranks(1, _greedy, ATTENTION_KINDS[kind])[0]
    assert alone == from_scratch
    assert together == from_scratch
    assert len({tuple(tokens) for tokens in from_scratch}) == len(PROMPTS), "all answers alike"


def _sampled() -> dict[str, Any]:
    from moe.evaluation.generation import Sampling, generate

    never = {"stop_ids": frozenset[int](), "max_seq_len": 64}

    def run(prompts: list[list[int]], **values: Any) -> list[list[int]]:
        return [c.tokens for c in generate(chunk, prompts, Sampling(**values), **never)]

    with built({}) as chunk:
        stop = run([[5]], max_new_tokens=3)[0]
        stopped = generate(
            chunk, [[5]], Sampling(max_new_tokens=9), stop_ids=frozenset({stop[2]}), max_seq_len=64
        )[0]
        return {
            "greedy": run(PROMPTS, max_new_tokens=5),
            "narrow": run(PROMPTS, max_new_tokens=5, temperature=1.0, top_p=1e-6),
            "one": run([PROMPTS[0]], max_new_tokens=5, temperature=1.0, seed=3),
            "all": run(PROMPTS, max_new_tokens=5, temperature=1.0, seed=3),
            "other": run(PROMPTS, max_new_tokens=5, temperature=1.0, seed=4),
            "stop": stop,
            "stopped": (stopped.tokens, stopped.stopped),
        }


def test_sampling_is_seeded_and_independent_of_the_batch() -> None:
    found = run_ranks(1, _sampled)[0]
    assert found["narrow"] == found["greedy"]
    assert found["all"][0] == found["one"][0]
    assert found["all"] != found["other"]
    assert found["stopped"] == (found["stop"][:2], True)


def _draws(top_p: float, temperature: float) -> list[int]:
    import torch

    from moe.evaluation.generation import Sampling, _Chooser

    logits = torch.tensor([0.4, 0.1, 0.3, 0.2, 0.0]).log()
    sampling = Sampling(temperature=temperature, top_p=top_p)
    chooser = _Chooser(sampling, 0, 5)
    return [chooser.choose(logits) for _ in range(4000)]


@pytest.mark.parametrize(
    ("top_p", "temperature", "expected"),
    [
        (1.0, 1.0, {0: 0.4, 1: 0.1, 2: 0.3, 3: 0.2}),
        (0.6, 1.0, {0: 4 / 7, 2: 3 / 7}),
        (0.75, 1.0, {0: 4 / 9, 2: 3 / 9, 3: 2 / 9}),
        (1.0, 0.5, {0: 16 / 30, 1: 1 / 30, 2: 9 / 30, 3: 4 / 30}),
    ],
)
def test_nucleus_and_temperature(
    top_p: float, temperature: float, expected: dict[int, float]
) -> None:
    counts = Counter(run_ranks(1, _draws, top_p, temperature)[0])
    assert set(counts) == set(expected)
    for token, share in expected.items():
        # Five standard deviations of a binomial count.
        tolerance = 5 * np.sqrt(share * (1 - share) / 4000)
        assert abs(counts[token] / 4000 - share) < tolerance


def _refuse(prompts: list[list[int]]) -> None:
    from moe.evaluation.generation import Sampling, generate

    generate(None, prompts, Sampling(max_new_tokens=8), stop_ids=frozenset(), max_seq_len=64)


@pytest.mark.parametrize(
    ("prompts", "fault"),
    [([[1], []], "prompt 2 is empty"), ([[1] * 60], "60 tokens; with 8 new ones it exceeds")],
)
def test_bad_prompts_are_refused(prompts: list[list[int]], fault: str) -> None:
    with pytest.raises(RankFailedError, match=f"ConfigError: .*{fault}"):
        run_ranks(1, _refuse, prompts)


def test_command(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_run(store, run, train={"steps": 2, "warmup_steps": 0})
    texts = ["a model", "the router sends"]
    code, out, err = command("generate", str(run), *texts, "--max-new-tokens", "6", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [row["prompt"] for row in document["continuations"]] == texts
    assert all(row["tokens"] == 6 or row["stopped"] for row in document["continuations"])
    code, out, err = command("generate", str(run), "x" * 99)
    assert (code, out) == (2, "")
    assert "exceeds the model's max_seq_len=64" in err and err.count("\n") == 1
