"""Templates see what transformers gives them: the same text for random rows."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from data.chat.answer_ends import TemplateError
from data.chat.encoding import encode_example
from data.chat.examples import read_example
from data.chat.messages import ExampleError
from data.chat.template_loading import load_chat_template
from data.tokenization.tokenizer import local_tokenizer
from tests.support.chat_helpers import CHATML_TOKENS, spelled, tokenizer_with
from tests.support.needs import lack

TEMPLATE = (
    "{{ bos_token }}{% if tools %}{{ 'TOOLS' }}{% for t in tools %}{{ t | tojson(indent=1) }}"
    "{% endfor %}{% endif %}{{ documents | tojson }}{% if mood is defined %}{{ mood }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if 'name' in m %}{{ m.name }}"
    "{% endif %}{% if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}"
    "{% endif %}{% if m.content is defined %}{{ m.content | trim }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ c.id ~ c.function.name }}"
    "{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}"
    "{{ c.function.arguments | tojson(ensure_ascii=True, sort_keys=True) }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.dictionaries(
    TEXT, TEXT | st.integers() | st.none() | st.lists(TEXT, max_size=2), max_size=2
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": TEXT,
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                # As objects, or as JSON texts of them.
                {"name": st.sampled_from(["f", "g"]), "arguments": VALUES | VALUES.map(json.dumps)}
            ),
        }
    ),
    min_size=1,
    max_size=2,
)
QUESTIONS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "tool"]), "content": TEXT},
    optional={"name": TEXT | st.none()},
)
ANSWERS = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": TEXT},
    optional={"reasoning_content": TEXT | st.none(), "thinking": TEXT, "tool_calls": st.none()},
) | st.fixed_dictionaries(
    {"role": st.just("assistant"), "tool_calls": CALLS}, optional={"content": TEXT | st.none()}
)
ROWS = st.fixed_dictionaries(
    {"messages": st.tuples(st.lists(QUESTIONS | ANSWERS, max_size=3), ANSWERS).map(
        lambda both: [*both[0], both[1]])},
    optional={
        "tools": st.lists(VALUES, max_size=2) | st.none(),
        "documents": st.lists(VALUES, max_size=2) | st.none(),
        "mood": TEXT,
        "unread": TEXT,
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Our template and transformers' tokenizer."""
    import transformers
    from transformers.utils import chat_template_utils

    if not hasattr(chat_template_utils, "_normalize_chat_messages"):
        lack("hub", "a transformers that gives templates no nulls (5.24 does)")
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(tokenizer_with(*CHATML_TOKENS).text)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token="<|endoftext|>",
        bos_token="<|im_start|>",
        chat_template=TEMPLATE,
    )
    theirs.save_pretrained(folder)
    return load_chat_template("tokenizer", local_tokenizer(folder), folder), theirs


@pytest.mark.needs("hub")
@given(row=ROWS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_the_text_of_random_rows(both: tuple[Any, Any], row: dict[str, Any]) -> None:
    ours, theirs = both
    more = {key: row[key] for key in ("tools", "documents", "mood") if key in row}
    expected = theirs.apply_chat_template(row["messages"], tokenize=False, **more)
    try:
        (document,) = encode_example(ours, read_example(json.dumps(row).encode()))
    except (ExampleError, TemplateError) as error:
        assume(error.reason != "empty_answer")
        raise
    assert spelled(ours, document.tokens.tolist()) == expected
    # What answers teach is what follows the prompt that transformers writes for them.
    last = len(row["messages"]) - 1
    prompt = theirs.apply_chat_template(
        row["messages"][:last], tokenize=False, add_generation_prompt=True, **more
    ) if last else None  # fmt: skip
    if prompt is not None:
        first, end = document.answers[-1]
        assert spelled(ours, document.tokens[first:end].tolist()) == expected[len(prompt) :]


@pytest.mark.needs("hub")
def test_the_template_is_read_from_the_folder(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    assert ours.template == theirs.chat_template
    assert {"tools", "documents", "mood"} <= ours.variables
