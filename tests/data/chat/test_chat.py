"""Conversation stores: what is an answer, what is packed with what, what is refused."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from data.chat.answer_ends import TemplateError
from data.chat.build import build_chat_store
from data.chat.template import ChatTemplate
from data.chat.template_loading import BUILT_IN
from data.cli.commands import app
from data.config import DataConfig
from data.errors import DataError
from data.loading.batch import Batch
from data.loading.loader import Loader
from data.storage.new_directory import new_directory
from data.store.reader import Store
from data.tokenization.tokenizer import byte_tokenizer
from tests.support.chat_helpers import CHATML_TOKENS, ask, tokenizer_with, write_rows

EOS = 256
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>\n' }}"
    "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DIALOGUE = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "  Which token ends a turn? "},
    {"role": "assistant", "content": "It is <|im_end|>, as text."},
    {"role": "user", "content": "And a text?"},
    {"role": "assistant", "content": "<|endoftext|>"},
]


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    chance = random.Random(4)
    rows = [ask(f"question {i}", "a" * chance.randint(1, 40) + str(i)) for i in range(200)]
    build_chat_store([write_rows(folder / "talk.jsonl", rows)], folder / "store", tokenizer="bytes",
                     held_out_fraction=0.2)  # fmt: skip
    return folder / "store"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {"prompt": f"say {i}", "chosen": "yes" * (1 + i % 4), "rejected": "no" * (1 + i % 3)}
        for i in range(60)
    ]
    build_chat_store([write_rows(folder / "p.jsonl", rows)], folder / "store", tokenizer="bytes",
                     held_out_fraction=0.1)  # fmt: skip
    return folder / "store"


def open_loader(store: Path, examples: str, **changes: Any) -> Loader:
    data = {"packing": "best_fit", "document_mask": True} if examples == "conversations" else {}
    data |= {k: changes.pop(k) for k in ("too_long", "seed") if k in changes}
    values = {"seq_len": 128, "global_batch_size": 4, "micro_batch_size": 2, "examples": examples}
    return Loader(DataConfig(store=store, prefetch_steps=0, **data), **values | changes)


def text_of(tokens: np.ndarray) -> str:
    return "".join(chr(t) if t < EOS else "$" for t in tokens)


def test_plain_template_by_hand() -> None:
    form = ChatTemplate(BUILT_IN["plain"], byte_tokenizer())
    encoded = form.encode(ask("hi", "yo")["messages"])
    assert text_of(encoded.tokens) == "<|user|>\nhi\n<|assistant|>\nyo$"
    assert encoded.answers == [(26, 29)]
    assert text_of(form.encode_prompt([{"role": "user", "content": "hi"}])).endswith("stant|>\n")
    assert form.stop_ids == {EOS}


@pytest.mark.needs("hub")
def test_equals_transformers_mask(tmp_path: Path) -> None:
    import transformers

    tokenizer = tokenizer_with(*CHATML_TOKENS)
    (tmp_path / "tokenizer.json").write_text(tokenizer.text)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    plain = [m for m in DIALOGUE if "<|" not in m["content"]]
    plain.append({"role": "assistant", "content": "Nothing of that."})
    expected = theirs.apply_chat_template(
        plain, chat_template=MARKED, return_assistant_tokens_mask=True, return_dict=True
    )
    found = ChatTemplate(MARKED, tokenizer).encode(plain)
    mask = np.zeros(found.tokens.size, int)
    for start, end in found.answers:
        mask[start:end] = 1
    assert found.tokens.tolist() == expected["input_ids"]
    assert mask.tolist() == expected["assistant_masks"]


def test_marks_and_prefixes_agree() -> None:
    tokenizer = tokenizer_with(*CHATML_TOKENS)
    by_mark, by_prefix = (ChatTemplate(t, tokenizer) for t in (MARKED, BUILT_IN["chatml"]))
    one, other = by_mark.encode(DIALOGUE), by_prefix.encode(DIALOGUE)
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.answers == other.answers and len(one.answers) == 2
    end = tokenizer.info.special_tokens["<|im_end|>"]
    assert by_mark.stop_ids == by_prefix.stop_ids == {end, tokenizer.info.eos_id}


def test_what_messages_say_is_no_special_token() -> None:
    tokenizer = tokenizer_with(*CHATML_TOKENS)
    form = ChatTemplate(BUILT_IN["chatml"], tokenizer)
    tokens = form.encode(DIALOGUE).tokens.tolist()
    end = tokenizer.info.special_tokens["<|im_end|>"]
    assert tokens.count(end) == len(DIALOGUE)
    assert tokenizer.info.eos_id not in tokens
    spelled = [t for t in tokens if t not in tokenizer.info.special_tokens.values()]
    assert "It is <|im_end|>, as text." in tokenizer.decode(spelled)


def test_a_template_that_rewrites_turns_is_refused() -> None:
    only_last = "{{ messages[-1].content }}{% if add_generation_prompt %}:{% endif %}"
    with pytest.raises(TemplateError, match="rewrites earlier turns"):
        ChatTemplate(only_last, byte_tokenizer()).encode(DIALOGUE)


def test_sandbox() -> None:
    form = ChatTemplate("{{ messages.__class__.__mro__ }}", byte_tokenizer())
    with pytest.raises(TemplateError, match="unsafe"):
        form.encode(DIALOGUE)


def test_every_conversation_once_whole_and_apart(conversations: Path) -> None:
    loader = open_loader(conversations, "conversations", split="held_out", global_batch_size=1,
                         micro_batch_size=1)  # fmt: skip
    stream = Store.open(conversations).split("held_out").streams[0]
    borders = [0, *stream.ends.tolist()]
    expected = {text_of(stream.read(a, b - a)) for a, b in zip(borders, borders[1:], strict=False)}
    found = []
    for step in range(loader.num_sequences):
        (batch,) = loader.step(step)
        assert batch.cu_seqlens is not None
        documents = batch.cu_seqlens.tolist()
        for first, end in zip(documents, documents[1:], strict=False):
            tokens, labels = batch.tokens[0, first:end], batch.labels[0, first:end]
            if (tokens == EOS).all():
                assert not batch.loss_mask[0, first:end].any()
                continue
            text = text_of(np.append(tokens[:1], labels))
            answer = text_of(labels[batch.loss_mask[0, first:end] == 1])
            assert answer == text.split("<|assistant|>\n")[1]
            assert batch.position_ids[0, first:end].tolist() == list(range(end - first))
            found.append(text)
        assert batch.lengths.tolist() == [int((batch.tokens != EOS).sum())]
    assert len(found) == len(expected) > 20
    assert set(found) == expected
    assert loader.num_sequences < len(found) / 2


def test_answers_of_several_turns(tmp_path: Path) -> None:
    turns = [("user", "q"), ("assistant", "first"), ("user", "r"), ("assistant", "second")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    file = write_rows(tmp_path / "t.jsonl", [row])
    build_chat_store([file], tmp_path / "store", tokenizer="bytes", held_out_fraction=0)
    loader = open_loader(tmp_path / "store", "conversations", global_batch_size=1,
                         micro_batch_size=1)  # fmt: skip
    (batch,) = loader.step(0)
    assert text_of(batch.labels[batch.loss_mask == 1]) == "first$second$"


def pair_texts(batches: list[Batch]) -> list[tuple[str, str]]:
    rows = [
        text_of(labels[mask == 1])
        for batch in batches
        for labels, mask in zip(batch.labels, batch.loss_mask, strict=True)
    ]
    return list(zip(rows[::2], rows[1::2], strict=True))


def test_pairs_stay_together_for_any_ranks(pairs: Path) -> None:
    alone = open_loader(pairs, "pairs", global_batch_size=8)
    assert alone.num_sequences == Store.open(pairs).split("train").num_documents
    ranks = [
        open_loader(pairs, "pairs", global_batch_size=8, data_parallel_rank=r, data_parallel_size=2)
        for r in range(2)
    ]
    seen = set()
    for step in range(alone.num_sequences // 8):
        expected = pair_texts(alone.step(step))
        assert pair_texts([b for rank in ranks for b in rank.step(step)]) == expected
        for chosen, rejected in expected:
            assert chosen.rstrip("$") in {"yes" * n for n in range(1, 5)}
            assert rejected.rstrip("$") in {"no" * n for n in range(1, 4)}
        seen |= set(expected)
    assert len(seen) == 12, "the order repeats pairs"


def test_shared_turns_of_a_pair_are_no_answers(tmp_path: Path) -> None:
    shared = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "same"}]
    ends = [[*shared, {"role": "assistant", "content": text}] for text in ("good", "bad")]
    row = {"chosen": ends[0], "rejected": ends[1]}
    file = write_rows(tmp_path / "p.jsonl", [row])
    build_chat_store([file], tmp_path / "store", tokenizer="bytes", held_out_fraction=0)
    loader = open_loader(tmp_path / "store", "pairs", global_batch_size=2)
    assert pair_texts(loader.step(0)) == [("good$", "bad$")]


@pytest.mark.parametrize("too_long", ["refuse", "cut", "drop"])
def test_long_conversations(tmp_path: Path, too_long: str) -> None:
    rows = [ask("q", "a" * n) for n in (3, 4, 60)] + [ask("q" * 90, "hidden")]
    file = write_rows(tmp_path / "t.jsonl", rows)
    build_chat_store([file], tmp_path / "store", tokenizer="bytes", held_out_fraction=0)
    sizes = {"seq_len": 48, "global_batch_size": 1, "micro_batch_size": 1, "too_long": too_long}
    if too_long == "refuse":
        with pytest.raises(DataError, match="2 of 4 train conversations of t are longer than"):
            open_loader(tmp_path / "store", "conversations", **sizes)
        return
    loader = open_loader(tmp_path / "store", "conversations", **sizes)
    batches = [loader.step(step)[0] for step in range(loader.num_sequences)]
    answers = "".join(text_of(b.labels[b.loss_mask == 1]) for b in batches)
    kept = 24 if too_long == "cut" else 0  # of the 60, what fits behind 25 positions of question
    assert sorted(answers) == sorted("aaa$aaaa$" + "a" * kept)


def test_wrong_store_for_a_mode(conversations: Path, pairs: Path, byte_store: Path) -> None:
    for store, examples, holds in (
        (conversations, "pairs", "conversations"),
        (pairs, "conversations", "pairs"),
        (byte_store, "conversations", "text"),
    ):
        with pytest.raises(DataError, match=rf"holds {holds}, .*moe data chat"):
            open_loader(store, examples)


def run(*arguments: str | Path) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, ["chat", *map(str, arguments)])
    return done.exit_code, done.stdout, done.exception


def test_command_counts_what_it_drops(tmp_path: Path) -> None:
    rows = [
        ask("q", "a"),
        ask("q", "a"),
        {"text": "no chat"},
        {"messages": [{"role": "user", "content": "no answer"}]},
        {"messages": [{"role": "user", "content": 3}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "b"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "parts"}]},
                      {"role": "assistant", "content": "c"}]},
    ]  # fmt: skip
    path = write_rows(tmp_path / "t.jsonl", rows)
    with path.open("a") as file:
        file.write("not JSON\n")
    arguments = (path, "-o", tmp_path / "store", "--tokenizer", "bytes", "--held-out", "0")
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    values = json.loads(out)
    assert values["documents"] == 3
    assert values["dropped"] == {
        "bad_json": 1, "bad_message": 1, "duplicate": 1, "no_answer": 1, "no_messages": 1,
    }  # fmt: skip
    assert values["chat"]["kind"] == "conversations"
    assert Store.open(tmp_path / "store").verify() == []
    answers = tmp_path / "store/t/train-answers.arrow"
    answers.write_bytes(answers.read_bytes().replace(b"ARROW1", b"ARROW2"))
    assert "train-answers.arrow: damaged" in Store.open(tmp_path / "store").verify()[0]
    _, _, error = run(*arguments[:2], tmp_path / "other", *arguments[3:], "--strict")
    assert str(error).endswith("t.jsonl, line 2: duplicate: the same example came before")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--tokenizer", "bytes", "--template", "chatml"], "no special token <|im_start|>"),
        (["--tokenizer", "bytes", "--template", "tokenizer"], "has no chat template"),
        (["--tokenizer", "bytes", "--template", "nowhere.jinja"], "No such file"),
        (["--tokenizer", "nowhere"], "no such tokenizer"),
        (["--tokenizer", "bytes", "--template", "{bad}"], "not valid Jinja"),
        (["{mixed}", "--tokenizer", "bytes"], "hold conversations and pairs"),
        (["{empty}", "--tokenizer", "bytes"], "no example is left"),
    ],
)
def test_wrong_input(options: list[str], fault: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jinja").write_text("{% for %}")
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    places = {
        "bad": tmp_path / "bad.jinja",
        "mixed": write_rows(tmp_path / "mixed.jsonl", [ask("q", "a"), pair]),
        "empty": write_rows(tmp_path / "empty.jsonl", []),
        "good": write_rows(tmp_path / "good.jsonl", [ask("q", "a")]),
    }
    if not options[0].startswith("{"):
        options = ["{good}", *options]
    arguments = [option.format(**places) for option in options]
    _, _, error = run(*arguments, "-o", tmp_path / "store")
    assert isinstance(error, DataError) and fault in str(error)
    assert not (tmp_path / "store").exists()
    assert "\n" not in str(error)


def test_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_rows(tmp_path / folder / "t.jsonl", [ask("q", "a")])
    with pytest.raises(DataError, match="two files are named t"):
        build_chat_store(
            [tmp_path / "a/t.jsonl", tmp_path / "b/t.jsonl"], tmp_path / "s", tokenizer="bytes"
        )


def test_two_builds_of_one_store_do_not_meet(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / "a.jsonl", [ask("q", "a")])]
    with (
        new_directory(tmp_path / "out") as root,
        pytest.raises(DataError, match="another process is building there"),
    ):
        build_chat_store(files, tmp_path / "out", tokenizer="bytes", held_out_fraction=0)
    assert not root.exists() and (tmp_path / "out").is_dir()
