"""Prompts as a model reads them, and where it stops: what its conversation store says."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from data.chat.stored import stored_stop_ids
from data.errors import DataError
from data.store.reader import Store
from data.tokenization.tokenizer import byte_tokenizer
from moe.cli.generate import _read_prompt
from moe.config.experiment import make_experiment
from moe.errors import ConfigError
from moe.evaluation.text_interface import text_interface_of
from tests.support.chat_helpers import ask, build_rows, spelled, tokenizer_with
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import MODEL
from tests.support.trained_runs import train_here

NEXT_ROLE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""Answers end with the next message's role token, or the end of the document (GLM-4)."""


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("chats")
    (folder / "tokenizer.json").write_text(tokenizer_with("<|user|>", "<|assistant|>").text)
    (folder / "t.jinja").write_text(NEXT_ROLE)
    rows = [{"messages": ask(f"text {i}", "text")["messages"] * 2} for i in range(12)]
    return build_rows(folder, rows, tokenizer=str(folder / "tokenizer.json"),
                      template=str(folder / "t.jinja"))  # fmt: skip


def test_a_conversation_store_says_how_to_ask_and_where_to_stop(chats: Store) -> None:
    language = text_interface_of(chats.path, chats.path)
    assert language.stop_ids == stored_stop_ids(chats)
    assert len(language.stop_ids) == 2
    assert language.chat is not None
    (prompt,) = language.encode_questions(["a text"])
    assert spelled(language.chat, prompt) == "<|user|>\na text<|assistant|>\n"


def test_a_text_store_has_no_chat(store: Path) -> None:
    language = text_interface_of(store, store)
    assert language.stop_ids == {Store.open(store).tokenizer.info.eos_id}
    with pytest.raises(ConfigError, match="no chat template is known"):
        language.encode_questions(["hi"])


def test_a_hub_folder_with_several_templates(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "tokenizer.json").write_text(tokenizer_with("<|user|>", "<|assistant|>").text)
    assert text_interface_of(tmp_path).chat is None
    named = [
        {"name": "tool_use", "template": "{{ 1 }}"},
        {"name": "default", "template": NEXT_ROLE},
    ]
    (hub / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    language = text_interface_of(tmp_path)
    assert language.chat is not None
    assert language.stop_ids == language.chat.stop_ids and len(language.stop_ids) == 2
    (hub / "tokenizer_config.json").write_text(json.dumps({"chat_template": named[:1]}))
    assert text_interface_of(tmp_path).chat is None


@pytest.mark.parametrize("given", [b"caf\xe9", b"half \xed\xa0\xbd emoji"])
def test_prompts_that_are_no_text(given: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = r"prompt 2: character \d is no character .* give UTF-8 text"
    with pytest.raises(DataError, match=fault):
        _read_prompt(given.decode(errors="surrogateescape"), 2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    with pytest.raises(DataError, match=fault):
        _read_prompt("-", 2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("caf\xe9\r\n".encode())))
    assert _read_prompt("-", 1) == "caf\xe9\n"


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), tokenizer_with()])
def test_texts_of_tasks_that_are_no_text(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"text 2: character 6 is no character \(U\+D83D"):
        tokenizer.encode_batch(["good", "half \ud83d emoji"])


def _answers(experiment: Any, run: Path) -> list[bool]:
    """Train an experiment, and ask it; returns which answers came to an end."""
    from moe.evaluation.generation import Sampling, generate
    from moe.evaluation.loading import loaded_model

    train_here(experiment, run)
    language = text_interface_of(run)
    with loaded_model(run, device="cpu", batch_invariant=True) as model:
        prompts = language.encode_questions(["text 3", "text 20"])
        found = generate(model.chunk, prompts, Sampling(max_new_tokens=24),
                         stop_ids=language.stop_ids, max_seq_len=64)  # fmt: skip
    return [one.stopped for one in found]


def test_a_trained_model_stops(chats: Store, tmp_path: Path) -> None:
    values = {
        "model": MODEL | {"num_layers": 2, "vocab_size": 304, "moe": None},
        "data": {"store": str(chats.path), "prefetch_steps": 0},
        "train": {"mode": "sft", "steps": 25, "seq_len": 64, "global_batch_size": 4,
                  "micro_batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 2},
        "parallel": {"device": "cpu"},
    }  # fmt: skip
    assert run_ranks(1, _answers, make_experiment(values), tmp_path / "run")[0] == [True, True]
