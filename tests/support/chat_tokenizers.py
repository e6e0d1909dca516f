"""Small tokenizers and templates of the kinds that models have, for tests of chat tokens."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, trainers

ROLE_TOKENS = ("<|im_start|>", "<|im_end|>", "<|user|>", "<|system|>", "<|assistant|>", "<|end|>")
NAMES = ("<s>", "</s>", *ROLE_TOKENS)
OTHER_NAMES = tuple(f"{{{i}!}}" for i in range(len(NAMES)))
"""Of the same tokens, for a tokenizer that is alike but for the names."""
SAMPLE = ["user: say it, assistant: a b ab ba\n\nAnswer: [INST] ab a. ba [/INST] aab bba. "] * 9
BEFORE: dict[str, Any] = {
    "byte-level": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "prefix space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    **{
        f"metaspace {scheme}": pre_tokenizers.Metaspace(prepend_scheme=scheme)
        for scheme in ("first", "always", "never")
    },
    "unsplit": pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
    "prepend": None,
}
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ BOS + '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'system' %}{{ BOS + '<<SYS>>\n' + m.content + '\n<</SYS>>' }}"
    "{% else %}{{ ' ' + m.content + ' ' + EOS }}{% endif %}{% endfor %}"
)
MIXTRAL = (
    "{{ BOS }}{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + EOS }}"
    "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{{ BOS }}{% for m in messages %}{% if m.role == 'user' %}{{ USER + '\n' }}"
    "{% elif m.role == 'assistant' %}{{ ASSISTANT + '\n' }}{% else %}{{ SYSTEM + '\n' }}{% endif %}"
    "{{ m.content + END + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ASSISTANT + '\n' }}{% else %}{{ EOS }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ IM_START + m.role + '\n' + m.content + IM_END + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ IM_START + 'assistant\n' }}{% endif %}"
)
OPEN_ENDED = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + EOS }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""A prompt that ends with a space, which belongs to the next word's token."""
TEMPLATES = {
    "llama2": LLAMA2, "mixtral": MIXTRAL, "phi3": PHI3, "chatml": CHATML, "open": OPEN_ENDED,
}  # fmt: skip
VARIABLES = ("BOS", "EOS", "IM_START", "IM_END", "USER", "SYSTEM", "ASSISTANT", "END")


def template_of(kind: str, names: Sequence[str] = NAMES) -> str:
    """A template that writes special tokens by given names."""
    given = "".join(
        f"{{% set {variable} = {json.dumps(name)} %}}"
        for variable, name in zip(VARIABLES, names, strict=True)
    )
    return given + TEMPLATES[kind]


@cache
def tokenizer_json(before: str, flags: tuple[str, ...] = (), names: tuple[str, ...] = NAMES) -> str:
    """A `tokenizer.json` whose special tokens have given flags and names."""
    model = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    byte_level = isinstance(BEFORE[before], pre_tokenizers.ByteLevel)
    if byte_level:
        model = tokenizers.Tokenizer(models.BPE())
    elif before == "prepend":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        model.normalizer = normalizers.Sequence(steps)
    if BEFORE[before] is not None:
        model.pre_tokenizer = BEFORE[before]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if byte_level else list("▁<>/|[]{}!_")
    trainer = trainers.BpeTrainer(
        vocab_size=420 if byte_level else 120,
        initial_alphabet=alphabet,
        special_tokens=[] if byte_level else ["<unk>"],
        show_progress=False,
    )
    # A tokenizer that splits nothing learns from words, or all of the sample would be one token.
    texts = SAMPLE
    if BEFORE[before] is None:
        texts = [f" {word} " for text in SAMPLE for word in text.split()]
    model.train_from_iterator(texts, trainer)
    named = {"rstrip": False, "lstrip": False, "single_word": False, "normalized": False}
    named |= dict.fromkeys(flags, True)
    model.add_special_tokens([AddedToken(name, **named) for name in names])
    return model.to_str()


HARMONY_TOKENS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>")
HARMONY = (
    "{% for m in messages %}{{ '<|start|>' + m.role }}{% if m.role != 'assistant' %}"
    "{{ '<|message|>' + m.content + '<|end|>' }}{% elif m.tool_calls %}"
    "{{ ' to=' + m.tool_calls[0].function.name + '<|message|>'"
    " + m.tool_calls[0].function.arguments | tojson + '<|call|>' }}"
    "{% else %}{% set is_last = loop.last and not add_generation_prompt %}"
    "{% if is_last and m.thinking %}"
    "{{ '<|channel|>analysis<|message|>' + m.thinking + '<|end|><|start|>assistant' }}{% endif %}"
    "{{ '<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if is_last else '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
"""As gpt-oss's: the last answer alone shows its thought, and ends with a token of its own; what
ends the others also stands between a thought and an answer."""
LAST_THOUGHT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen3's: earlier answers lose their thoughts, empty ones too."""
LAST_TOOLS = (
    "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[TOOLS]' + tools | tojson if tools and m == asked[-1] }}{{ '[INST]' + m.content }}"
    "{% else %}{{ '[/INST]' + m.content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[/INST]' }}{% endif %}"
)
"""As Mistral's (v0.3): tools stand before the last question."""
