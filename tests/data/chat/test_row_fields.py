"""What a row has beside roles and contents is honored, refused, or counted by its name."""

from pathlib import Path
from typing import Any

import pytest

from data.chat.messages import ExampleError
from data.chat.template import ChatTemplate
from data.chat.template_loading import BUILT_IN
from data.tokenization.tokenizer import byte_tokenizer
from tests.support.chat_helpers import ask, build_rows, document_texts, learned_texts, turns

PLAIN = ChatTemplate(BUILT_IN["plain"], byte_tokenizer())
TWO_ANSWERS = turns(("user", "q"), ("assistant", "one"), ("user", "r"), ("assistant", "two"))
EOS = "<|endoftext|>"


def two_answers(**of_the_first: Any) -> dict[str, Any]:
    return {"messages": [TWO_ANSWERS[0], TWO_ANSWERS[1] | of_the_first, *TWO_ANSWERS[2:]]}


@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}]
)
def test_an_answer_of_no_weight_is_read_and_not_learned(mark: dict[str, Any]) -> None:
    assert learned_texts(PLAIN, two_answers(**mark)) == [[f"two{EOS}"]]
    assert document_texts(PLAIN, two_answers(**mark)) == document_texts(PLAIN, two_answers())


@pytest.mark.parametrize("mark", [{"weight": 1}, {"train": True}, {"loss": 0.7}, {"weight": None}])
def test_an_answer_of_weight_one_is_learned(mark: dict[str, Any]) -> None:
    assert learned_texts(PLAIN, two_answers(**mark)) == [[f"one{EOS}", f"two{EOS}"]]


def test_marks_of_a_template_know_their_messages() -> None:
    marked = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content + eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}"
    )
    template = ChatTemplate(marked, byte_tokenizer())
    assert learned_texts(template, two_answers(weight=0)) == [[f"two{EOS}"]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (two_answers(weight=0.5), "bad_message"),
        (two_answers(train="no"), "bad_message"),
        ({"messages": [TWO_ANSWERS[0], TWO_ANSWERS[1] | {"weight": 0}]}, "no_answer"),
        ({"messages": turns(("user", "q"))}, "no_answer"),
        ({"messages": turns(("user", "q"), ("assistant", " "))}, "empty_answer"),
        ({"prompt": "q", "chosen": "", "rejected": "no"}, "empty_answer"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
                                                       {"type": "image", "url": "b"}]},
                          TWO_ANSWERS[1]]},
            "not_text",
        ),
        (ask("<image> q", "a") | {"images": ["a.png"]}, "not_text"),
        (ask("q", "a") | {"chat_template_kwargs": 3}, "bad_variables"),
        ({"messages": [{"role": "user", "content": "q", "tool_calls": "f"}]}, "bad_message"),
        ({"system": "s", "messages": turns(("system", "t"), ("assistant", "a"))}, "bad_message"),
    ],
)  # fmt: skip
def test_refused_by_name(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    assert build_rows(tmp_path, [row, ask("q", "kept")]).manifest.dropped == {reason: 1}


def test_fields_that_nothing_reads_are_counted(tmp_path: Path) -> None:
    rows = [
        ask("q", "a") | {"id": 7, "tools": [{"name": "f"}], "images": [], "note": ""},
        ask("q", "b") | {"id": 8},
        {"messages": [TWO_ANSWERS[0] | {"name": "Ada", "train": True, "weight": 0},
                      TWO_ANSWERS[1] | {"reasoning_content": "hm", "weight": 1, "name": None}]},
        {"messages": [TWO_ANSWERS[0], TWO_ANSWERS[1] | {"thinking": "so"}]},
    ]  # fmt: skip
    store = build_rows(tmp_path, rows)
    assert store.manifest.dropped == {"duplicate": 1}
    assert store.manifest.counts == {
        "unread.message.name": 1,
        "unread.message.reasoning_content": 1,
        "unread.message.train": 1,
        "unread.row.id": 2,
        "unread.row.tools": 1,
    }


def test_names_without_end_are_counted_together(tmp_path: Path) -> None:
    rows = [ask("q", str(i)) | {f"key\n {i}": i} for i in range(103)]
    counts = build_rows(tmp_path, rows).manifest.counts
    assert len(counts) == 101
    assert counts["unread.others"] == 3
    assert counts["unread.row.key 99"] == 1


def test_what_the_template_reads_is_given_and_not_counted(tmp_path: Path) -> None:
    form = (
        "{{ mood }}{% for d in documents or [] %}{{ d.title }}{% endfor %}{% for m in messages %}"
        "{{ m.name or '' }}{{ '(' + m.reasoning_content + ')' if m.reasoning_content }}"
        "{{ m.content + eos_token }}{% endfor %}"
    )
    (tmp_path / "t.jinja").write_text(form)
    row = {
        "documents": [{"title": "D"}],
        "mood": "glad",
        "chat_template_kwargs": {"mood": "sad"},
        "messages": [TWO_ANSWERS[0] | {"name": "Ada"}, TWO_ANSWERS[1] | {"reasoning": "hm"}],
    }
    template = ChatTemplate(form, byte_tokenizer())
    assert document_texts(template, row) == [f"sadDAdaq{EOS}(hm)one{EOS}"]
    store = build_rows(tmp_path, [row], template=str(tmp_path / "t.jinja"))
    assert store.manifest.counts == {}


def test_a_row_replaces_nothing_of_the_template_s_own() -> None:
    form = (
        "{{ bos_token }}{% set s = namespace(n=0) %}{% for m in messages %}"
        "{{ m.content + eos_token }}{% endfor %}"
    )
    template = ChatTemplate(form, byte_tokenizer(), {"bos_token": "B"})
    row = ask("q", "a") | {
        key: "other"
        for key in ("bos_token", "eos_token", "add_generation_prompt", "namespace", "range")
    }
    assert document_texts(template, row) == [f"Bq{EOS}a{EOS}"]


def test_pairs_of_other_lengths(tmp_path: Path) -> None:
    longer = {
        "prompt": "q",
        "chosen": turns(("assistant", "good")),
        "rejected": turns(("assistant", "bad"), ("user", "really?"), ("assistant", "worse")),
    }
    assert learned_texts(PLAIN, longer) == [[f"good{EOS}"], [f"bad{EOS}", f"worse{EOS}"]]
    rows = [
        longer,
        {"chosen": TWO_ANSWERS, "rejected": TWO_ANSWERS[:2]},  # nothing is rejected
        {"chosen": TWO_ANSWERS[:2], "rejected": turns(("user", "other"), ("assistant", "bad"))},
        {"chosen": TWO_ANSWERS, "rejected": [*TWO_ANSWERS[:2], *turns(("user", "s"))]},
    ]
    store = build_rows(tmp_path, rows)
    assert store.manifest.dropped == {"different_prompts": 2, "no_answer": 1}
    assert store.manifest.documents == 2


@pytest.mark.parametrize(
    ("row", "remedy"),
    [
        ({"chosen": "\n\nHuman: hi\n\nAssistant: good",
          "rejected": "\n\nHuman: hi\n\nAssistant: bad"},
         "transcripts as lists of messages"),
        ({"system": "s", "question": "q", "chosen": "good", "rejected": "bad"},
         "give the row's question as prompt"),
        ({"instruction": "add", "input": "1, 2", "chosen": "3", "rejected": "4"},
         "give the row's instruction and input as prompt"),
        ({"chosen": turns(("system", "s"), ("assistant", "good")),
          "rejected": turns(("system", "s"), ("assistant", "bad"))}, "give it as prompt"),
        ({"prompt": turns(("assistant", "hello")), "chosen": "good", "rejected": "bad"},
         "give it as prompt"),
    ],
)  # fmt: skip
def test_a_pair_that_answers_nothing(row: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ExampleError, match=f"^no_prompt: no question precedes.*{remedy}"):
        document_texts(PLAIN, row)


def test_a_pair_may_begin_with_an_answer() -> None:
    greeted = turns(("assistant", "hello"), ("user", "q"))
    row = {"prompt": greeted, "chosen": "good", "rejected": "bad"}
    assert learned_texts(PLAIN, row) == [[f"good{EOS}"], [f"bad{EOS}"]]


def test_an_empty_system_message_says_nothing_against_the_row_s() -> None:
    rows = [
        {"system": "s", "messages": turns(*said, ("user", "q"), ("assistant", "a"))}
        for said in ((), (("system", ""),), (("system", "s"),))
    ]
    assert len({tuple(document_texts(PLAIN, row)) for row in rows}) == 1


SYSTEM_TURN = turns(("system", "s"))
QUESTION = turns(("user", "q"))


@pytest.mark.parametrize("prompt", [None, "q", QUESTION, [*SYSTEM_TURN, *QUESTION]])
@pytest.mark.parametrize("repeated", [[], QUESTION, [*SYSTEM_TURN, *QUESTION]])
def test_a_prompt_is_never_doubled(prompt: Any, repeated: list[dict[str, Any]]) -> None:
    if prompt is None and not repeated:
        return
    row: dict[str, Any] = {
        key: [*repeated, *turns(("assistant", key))] for key in ("chosen", "rejected")
    }
    said = "s" if SYSTEM_TURN[0] in [*(prompt or []), *repeated] else None
    start = f"<|system|>\n{said}\n" if said else ""
    expected = [f"{start}<|user|>\nq\n<|assistant|>\n{key}{EOS}" for key in ("chosen", "rejected")]
    assert document_texts(PLAIN, row | {"prompt": prompt}) == expected


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_a_second_conversation_in_a_row(key: str, tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    asked = turns(("user", "q"))
    rows = [
        pair | {key: [*asked, *turns(("assistant", "a"))]},  # as UltraFeedback repeats it
        pair | {"chosen": "c", key: [*asked, *turns(("assistant", "a"))]},
        {"chosen": "d", "rejected": "b", key: asked},  # a pair without its question
    ]
    store = build_rows(tmp_path, rows)
    assert store.manifest.dropped == {"two_conversations": 2}
    assert store.manifest.counts == {}
    (tmp_path / "s").mkdir()
    both = ask("q", "a") | {"conversations": turns(("user", "r"), ("assistant", "a"))}
    store = build_rows(tmp_path / "s", [both, ask("q", "b") | {"chosen": None, "rejected": None}])
    assert store.manifest.dropped == {"two_conversations": 1}
    assert store.manifest.documents == 1


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "text": "a", "image_url": {"url": "b"}},
        {"type": "text", "text": "a", "image": "b"},
        {"text": "a", "input_audio": {"data": "b"}},
        {"type": "image", "text": "a"},
        {"type": "file", "text": "a"},
    ],
)
def test_parts_that_hold_more_than_text(part: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": [part]}, TWO_ANSWERS[1]]},
        {"messages": [TWO_ANSWERS[0] | {"images": ["a.png"]}, TWO_ANSWERS[1]]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q", "image": None},
                                                   {"type": "input_text", "text": "r"}]},
                      TWO_ANSWERS[1]]},
    ]  # fmt: skip
    store = build_rows(tmp_path, rows)
    assert store.manifest.dropped == {"not_text": 2} and store.manifest.documents == 1
