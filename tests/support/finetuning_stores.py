"""Conversations, pairs and a trained base for the tests of training modes."""

import json
import random
from pathlib import Path
from typing import Any

from data.chat.build import build_chat_store
from moe.config.experiment import Experiment, make_experiment
from tests.support.layout_equivalence import MODEL, TRAIN

WORDS = ["model", "learns", "which", "expert", "reads", "next", "token", "router", "sends", "it"]
SMALL: dict[str, Any] = {**TRAIN, "steps": 6, "seq_len": 56, "learning_rate": 1e-3}


def write_chats(folder: Path, count: int = 120) -> Path:
    """A store of questions whose answer is a word of theirs, in capitals."""
    chance = random.Random(7)
    rows = []
    for _ in range(count):
        words = chance.sample(WORDS, 2)
        answer = words[0].upper() * chance.randint(1, 2)
        messages = [("user", " ".join(words)), ("assistant", answer)]
        rows.append({"messages": [{"role": r, "content": text} for r, text in messages]})
    return _built(folder / "chats", rows)


def write_pairs(folder: Path, count: int = 120) -> Path:
    """A store of pairs: capitals are preferred to small letters."""
    chance = random.Random(8)
    rows = []
    for _ in range(count):
        word, other = chance.sample(WORDS, 2)
        answer = other * chance.randint(1, 2)
        rows.append({"prompt": word, "chosen": answer.upper(), "rejected": answer})
    return _built(folder / "pairs", rows)


def _built(store: Path, rows: list[Any]) -> Path:
    file = store.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_chat_store([file], store, tokenizer="bytes", held_out_fraction=0.2)
    return store


def tune(mode: str, store: Path, layout: dict[str, Any] | None = None, **train: Any) -> Experiment:
    """Return an experiment of a mode on the tests' model."""
    model = train.pop("model", {})
    values: dict[str, Any] = {
        "model": MODEL | model,
        "train": SMALL | {"mode": mode} | train,
        "data": {"store": str(store), "prefetch_steps": 0},
        "parallel": {"device": "cpu"} | (layout or {}),
    }
    return make_experiment(values)
