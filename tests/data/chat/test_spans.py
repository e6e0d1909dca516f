"""An answer begins where its generation prompt ends, or the line says why not."""

from typing import Any

import pytest

from data.chat.answer_ends import TemplateError
from data.chat.messages import read_messages
from data.chat.template import ChatTemplate
from data.tokenization.tokenizer import byte_tokenizer
from tests.support.chat_helpers import (
    CHATML_TOKENS,
    ask,
    document_texts,
    learned_texts,
    tokenizer_with,
    turns,
)
from tests.support.chat_tokenizers import HARMONY, HARMONY_TOKENS, LAST_THOUGHT, LAST_TOOLS

THINKING_PROMPT = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'User:' + m.content }}{% else %}"
    "{{ 'Assistant:' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:<think>\n' }}{% endif %}"
)
"""As DeepSeek-R1's: what its generation prompt ends with, no finished answer shows."""
MARKED = THINKING_PROMPT.replace(
    "{{ 'Assistant:' + m.content.split('</think>')[-1] + eos_token }}",
    "{{ 'Assistant:' }}{% generation %}{{ m.content + eos_token }}{% endgeneration %}",
)
FORGETTING = (
    "{% for m in messages %}{{ m.role }}{% if loop.last %}{{ m.reasoning_content }}{% endif %}"
    "{{ m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
)


@pytest.mark.parametrize("count", [1, 2])
def test_a_generation_prompt_that_no_answer_shows(count: int) -> None:
    template = ChatTemplate(THINKING_PROMPT, byte_tokenizer())
    messages = turns(("user", "q"), ("assistant", "<think>\nhm</think>a")) * count
    with pytest.raises(TemplateError, match=r"prompt ends with 'Assistant:<think>\\n', and the answ"
                       r".*mark answers with \{% generation %\}"):  # fmt: skip
        template.encode(messages)
    assert learned_texts(
        ChatTemplate(MARKED, byte_tokenizer()), ask("q", "<think>\nhm</think>a")
    ) == [["<think>\nhm</think>a<|endoftext|>"]]


def test_turns_that_are_rewritten_are_learned_one_a_row() -> None:
    thinking = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    messages = [*turns(("user", "q")), thinking, *turns(("user", "r")), thinking]
    template = ChatTemplate(FORGETTING, byte_tokenizer())
    with pytest.raises(TemplateError, match=r"learn one answer a row .*\"weight\": 0"):
        template.encode(messages)
    assert template.encode(messages[:2]).answers


def marked(row: dict[str, Any], *unlearned: int) -> dict[str, Any]:
    """A row some of whose messages are not to be learned."""
    messages = [m | {"weight": 0} if i in unlearned else m for i, m in enumerate(row["messages"])]
    return row | {"messages": messages}


THOUGHTS = {
    "messages": [
        *turns(("user", "q")),
        {"role": "assistant", "content": "one", "thinking": "hm"},
        *turns(("user", "r")),
        {"role": "assistant", "content": "two", "thinking": "so"},
    ],
    "tools": [{"name": "f"}],
}
LEARNED = {
    LAST_THOUGHT: (
        "<think>\nhm\n</think>\n\none<|im_end|>\n",
        "<think>\nso\n</think>\n\ntwo<|im_end|>\n",
    ),
    LAST_TOOLS: ("one<|endoftext|>", "two<|endoftext|>"),
    HARMONY: tuple(
        f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{said}<|return|>"
        for thought, said in (("hm", "one"), ("so", "two"))
    ),
}


@pytest.mark.parametrize("form", LEARNED)
def test_only_what_is_learned_has_to_stay_as_it_is(form: str) -> None:
    template = ChatTemplate(form, tokenizer_with(*CHATML_TOKENS, *HARMONY_TOKENS))
    with pytest.raises(TemplateError, match='"weight": 0'):
        learned_texts(template, THOUGHTS)
    first, second = LEARNED[form]
    assert learned_texts(template, marked(THOUGHTS, 1)) == [[second]]
    assert learned_texts(template, marked(THOUGHTS, 3)) == [[first]]
    *prompt, answer = THOUGHTS["messages"]
    other = {"role": "assistant", "content": "three", "thinking": "so"}
    row = {"prompt": prompt, "chosen": [answer], "rejected": [other], "tools": THOUGHTS["tools"]}
    assert learned_texts(template, row) == [[second], [second.replace("two", "three")]]
    # The document is the text that the model is asked with, and what it says to it.
    (text,) = document_texts(template, marked(THOUGHTS, 1))
    asked = template.render(
        read_messages(prompt, "user"), add_generation_prompt=True, variables=THOUGHTS
    )
    assert text == asked + second
    (text,) = document_texts(template, marked(THOUGHTS, 3))
    assert text.endswith(first), "what follows the last answer to be learned is left out"
