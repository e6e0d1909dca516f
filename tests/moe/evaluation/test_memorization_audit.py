"""The memorization audit: what was planted often is found, what was not is not."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.build.build import build_recipe
from data.canaries import alternatives, split_secret
from data.recipe import read_recipe
from moe.evaluation.memorization_results import Audit, CanaryGroup, Passages, finding
from tests.support.distributed import run_ranks
from tests.support.trained_runs import command, train_run

MODEL: dict[str, Any] = {"max_seq_len": 128, "hidden_size": 64, "num_layers": 2}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with canaries: two never, two planted 60 times."""
    folder = tmp_path_factory.mktemp("planted")
    chance = random.Random(3)
    for index in range(40):
        text = " ".join(chance.choices(["red", "green", "blue", "black"], k=60))
        (folder / f"{index:02d}.txt").write_text(text)
    recipe = f"""
held_out_fraction = 0.2
tokenizer = "bytes"
[canaries]
count = 2
repeats = [0, 60]
[[source]]
name = "text"
paths = ["{folder}"]
"""
    (folder / "recipe.toml").write_text(recipe)
    build_recipe(read_recipe(folder / "recipe.toml"), folder / "store", workers=1)
    return folder / "store"


@pytest.fixture(scope="module")
def run(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("audited") / "run"
    train = {"steps": 120, "seq_len": 128, "global_batch_size": 8, "micro_batch_size": 8,
             "learning_rate": 1e-2}  # fmt: skip
    train_run(planted, place, model=MODEL, train=train)
    return place


def test_planted_canaries_are_found_and_others_not(run: Path) -> None:
    arguments = ("audit", str(run), "--candidates", "63", "--passages", "6", "--device", "cpu")
    code, out, err = command(*arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    never, often = found["canaries"]
    assert (never["repeats"], often["repeats"]) == (0, 60)
    assert often["mean_exposure_bits"] == found["most_exposure_bits"] == 6
    assert often["p_value"] < 0.01 < never["p_value"]
    assert "Canaries planted 60 times: exposure 6.0 bits" in found["finding"]
    assert "memorized" in found["finding"] and "as chance has it" in found["finding"]
    assert [some["passages"] for some in found["passages"]] == [6, 6]
    code, out, err = command(*arguments)
    assert out.strip() == found["finding"] and "canaries planted 60 times" in err


def _slow_exposure(run: Path) -> tuple[list[float], list[float]]:
    """Exposures from a forward pass for each text alone."""
    import torch

    from moe.evaluation.loading import loaded_model
    from moe.evaluation.loss import open_store
    from moe.evaluation.memorization_audit import _exposure

    with loaded_model(run, device="cpu") as model, torch.no_grad():
        store = open_store(model)
        fast, slow = [], []
        for canary in store.manifest.canaries:
            losses = []
            for text in [canary.text, *alternatives(canary.text, 31)]:
                ids = [256, *store.tokenizer.encode(text).tolist()]
                tokens = torch.tensor([ids])
                logits = model.chunk(tokens, torch.arange(len(ids))[None], None)[0].double()
                logs = torch.log_softmax(logits[:-1], -1)
                losses.append(-float(logs.gather(1, tokens[0, 1:, None]).sum()))
            rank = 1 + sum(other < losses[0] for other in losses[1:])
            slow.append(math.log2(32 / rank))
            fast.append(_exposure(model, store, canary, 31))
        return fast, slow


def test_exposure_is_its_definition(run: Path) -> None:
    fast, slow = run_ranks(1, _slow_exposure, run)[0]
    assert fast == pytest.approx(slow)
    assert len(set(slow)) > 1


def test_p_value_is_uniform_by_chance() -> None:
    chance = np.random.default_rng(1)
    values = []
    for _ in range(2000):
        ranks = chance.integers(1, 10_001, size=5)
        bits = [math.log2(10_000 / rank) for rank in ranks]
        values.append(CanaryGroup(repeats=0, exposures_bits=bits, extracted=0).p_value)
    for level in (0.05, 0.5, 0.9):
        assert abs(np.mean(np.array(values) < level) - level) < 0.04
    assert CanaryGroup(repeats=0, exposures_bits=[0.0], extracted=0).p_value == 1


def test_secrets_are_split_where_they_begin() -> None:
    text = "The moescale canary 0-1-0 says: 00001 00002"
    assert split_secret(text) == ("The moescale canary 0-1-0 says:", "00001 00002")
    others = alternatives(text, 5)
    assert len(set(others)) == 5 and text not in others
    assert all(split_secret(other)[0] == split_secret(text)[0] for other in others)


def test_finding_without_canaries() -> None:
    none = Passages(split="held_out", count=0, extracted=0)
    train = Passages(split="train", count=50, extracted=5)
    text = finding(Audit(candidates=9, prompt_tokens=8, canaries=[], passages=[train, none]))
    assert text == (
        "The store has no canaries: exposure is not measured. Of 50 training passages the model"
        " writes 5 on verbatim for 8 tokens (4.3% to 21.4%)."
    )
    assert none.as_json()["rate"] is None


def _repeats(run: Path) -> Any:
    """Passages, by a stand-in that knows the split by heart."""
    from moe.evaluation import memorization_audit
    from moe.evaluation.loading import loaded_model
    from moe.evaluation.loss import open_store

    with loaded_model(run, device="cpu") as model:
        store = open_store(model)
        stream = store.split("held_out").streams[0]
        text = stream.read(0, stream.num_tokens).tolist()

        def know(_: Any, prompts: Any, new: int) -> list[list[int]]:
            places = [
                next(i for i in range(len(text)) if text[i : i + len(p)] == p) for p in prompts
            ]
            return [text[i + len(p) :][:new] for i, p in zip(places, prompts, strict=True)]

        memorization_audit._written = know  # type: ignore[assignment]
        return memorization_audit._passages(model, store, "held_out", 7, 60).as_json()


def test_verbatim_passages_are_counted(run: Path) -> None:
    found = run_ranks(1, _repeats, run)[0]
    assert found["passages"] == found["extracted"] == 7
