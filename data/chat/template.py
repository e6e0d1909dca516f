"""Conversations as text and tokens: the template, and which tokens are answers.

Templates are Jinja, as Hugging Face tokenisers carry them, run in a sandbox. What a message says
never becomes a special token: only the template's own do.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError, InputError
from data.tokenization.bpe_cache import Ids
from data.tokenization.tokenizer import Tokenizer

ASSISTANT = "assistant"
BUILT_IN = {
    "plain": (
        "{% for m in messages %}{{ '' if loop.first else '\n' }}"
        "{{ '<|' + m.role + '|>\n' + m.content }}"
        "{{ eos_token if m.role == 'assistant' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}
"""`plain`: roles in plain text, answers end with the end-of-document token: any tokeniser has
what it needs (Tulu, arXiv:2306.04751). `chatml`: needs the special tokens it names."""
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
PRIVATE = range(0xE000, 0xF8FE)
"""Unicode's private use area: where a mark is found that a conversation does not use."""

GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
OPEN, CLOSE = chr(0xF8FE), chr(0xF8FF)
"""Around an answer in a template that marks answers."""

Message = dict[str, Any]
"""`role`, `content` (a string) and whatever else the template reads."""


class TemplateError(InputError):
    """A conversation that its template refuses, or whose answers cannot be told."""


@dataclass(frozen=True)
class TextSpan:
    """A stretch of a conversation's text."""

    text: str
    is_answer: bool


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation in tokens."""

    tokens: Ids
    answers: list[tuple[int, int]]
    """First and one past the last token of each answer."""


class ChatTemplate:
    """Turns conversations into tokens with one template and one tokeniser."""

    def __init__(self, template: str, tokenizer: Tokenizer, names: dict[str, str] | None = None):
        """Compile a template.

        Args:
            template: Its Jinja text.
            tokenizer: Of the model.
            names: More variables of the template, for example `bos_token`.

        Raises:
            DataError: It is not Jinja.
        """
        self.template = template
        self.names = names or {}
        self._tokenizer = tokenizer
        self._compiled = _compile(template)
        special = sorted(tokenizer.info.special_tokens, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, special))})") if special else None

    def render(self, messages: Sequence[Message], *, ask: bool = False) -> str:
        """Return a conversation's text; `ask` adds what precedes the next answer."""
        import jinja2

        try:
            text: str = self._compiled.render(
                messages=messages,
                add_generation_prompt=ask,
                **{"eos_token": self._tokenizer.info.eos_token, **self.names},
            )
        except (jinja2.TemplateError, TypeError, KeyError) as error:
            raise TemplateError(f"the template refuses it: {error}") from None
        return text

    def encode(self, messages: Sequence[Message]) -> EncodedConversation:
        """Return a conversation's tokens up to the end of its last answer.

        Each stretch is tokenised by itself: an answer's tokens are those that the model will have
        to write after the tokens that precede it.

        Raises:
            TemplateError: The template refuses the conversation, or rewrites earlier turns.
        """
        mark = _unused_mark(messages)
        tokens: list[Ids] = []
        answers = []
        length = 0
        for part in self._parts(_marked(list(messages), self._special, mark)):
            ids = self._ids(part.text, mark)
            if part.is_answer and ids.size:
                answers.append((length, length + ids.size))
            tokens.append(ids)
            length += ids.size
        return EncodedConversation(
            np.concatenate(tokens) if tokens else np.zeros(0, np.uint32), answers
        )

    def encode_prompt(self, messages: Sequence[Message]) -> Ids:
        """Return the tokens after which the model's next answer begins."""
        mark = _unused_mark(messages)
        return self._ids(self.render(_marked(list(messages), self._special, mark), ask=True), mark)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the document's end, and what the template puts there."""
        stops = {self._tokenizer.info.eos_id}
        asked: list[Message] = [{"role": "user", "content": "x"}]
        answered = [*asked, {"role": ASSISTANT, "content": "y"}]
        try:
            ending = re.sub(f"[{OPEN}{CLOSE}]", "", self.render(answered))
            ending = ending[len(self.render(asked, ask=True)) :].partition("y")[2]
        except TemplateError:  # a template that wants other turns: its end is not known
            return frozenset(stops)
        found = self._special and self._special.match(ending)
        if found:
            stops.add(self._tokenizer.info.special_tokens[found[0]])
        return frozenset(stops)

    def _parts(self, messages: Sequence[Message]) -> Iterator[TextSpan]:
        if GENERATION.search(self.template):
            return self._by_mark(messages)
        return self._by_prefix(messages)

    def _by_prefix(self, messages: Sequence[Message]) -> Iterator[TextSpan]:
        """Tell an answer by what its message adds to the text before it."""
        done = ""
        for place, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            before = self.render(messages[:place], ask=True)
            after = self.render(messages[: place + 1])
            if not (before.startswith(done) and after.startswith(before)):
                raise TemplateError("the template rewrites earlier turns: cut it into one a turn")
            yield TextSpan(before[len(done) :], is_answer=False)
            yield TextSpan(after[len(before) :], is_answer=True)
            done = after

    def _by_mark(self, messages: Sequence[Message]) -> Iterator[TextSpan]:
        """Tell an answer by the template's own `{% generation %}` marks."""
        pieces = re.split(f"[{OPEN}{CLOSE}]", self.render(messages))
        last = len(pieces) - 1 if len(pieces) % 2 else len(pieces)
        return (TextSpan(text, is_answer=bool(i % 2)) for i, text in enumerate(pieces[:last]))

    def _ids(self, text: str, mark: str) -> Ids:
        pieces = self._special.split(text) if self._special else [text]
        plain = [piece.replace(mark, "") for piece in pieces[::2]]
        encoded = self._tokenizer.encode_batch(plain)
        special = [self._tokenizer.info.special_tokens[piece] for piece in pieces[1::2]]
        found: list[Ids] = [encoded[0]]
        for token, ids in zip(special, encoded[1:], strict=True):
            found += [np.array([token], dtype=np.uint32), ids]
        return np.concatenate(found)


def load_chat_template(name: str, tokenizer: Tokenizer, folder: Path | None) -> ChatTemplate:
    """Return the format that `--template` names.

    Args:
        name: `plain`, `chatml`, `tokenizer` (the tokeniser folder's own), or a Jinja file.
        tokenizer: Of the model.
        folder: Where the tokeniser's files lie; None: it has none.

    Raises:
        DataError: There is none, it is not Jinja, or it needs tokens that the tokeniser lacks.
    """
    names = {} if folder is None else _token_names(folder)
    if name == "chatml":
        missing = [t for t in CHATML_TOKENS if t not in tokenizer.info.special_tokens]
        if missing:
            raise DataError(
                f"--template chatml: the tokenizer has no special token {missing[0]}: use"
                " --template plain, or a tokenizer that has it"
            )
    if name in BUILT_IN:
        return ChatTemplate(BUILT_IN[name], tokenizer, names)
    if name == "tokenizer":
        return ChatTemplate(_own_template(folder), tokenizer, names)
    try:
        return ChatTemplate(Path(name).read_text(encoding="utf-8"), tokenizer, names)
    except OSError as error:
        raise DataError(
            f"--template {name}: {error.strerror}: give {', '.join(BUILT_IN)}, tokenizer or a file"
        ) from None


def _own_template(folder: Path | None) -> str:
    if folder is not None and (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    found = None if folder is None else _settings(folder).get("chat_template")
    if not isinstance(found, str):
        raise DataError(
            "--template tokenizer: the tokenizer's folder has no chat template"
            " (chat_template.jinja, or in tokenizer_config.json): use --template plain"
        )
    return found


def _token_names(folder: Path) -> dict[str, str]:
    """Return the names that templates know tokens by, such as `bos_token`."""
    names = {}
    for key, value in _settings(folder).items():
        token = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(token, str):
            names[key] = token
    return names


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        raise DataError(f"{file}: not JSON: mend it") from None
    return values if isinstance(values, dict) else {}


def _unused_mark(messages: Sequence[Message]) -> str:
    """Return a character that no message holds."""
    used = set(json.dumps(messages, ensure_ascii=False))
    return next(chr(code) for code in PRIVATE if chr(code) not in used)


def _marked(value: Any, special: re.Pattern[str] | None, mark: str) -> Any:
    """Break special tokens that messages spell out, so that they stay plain text."""
    if special is None:
        return value
    if isinstance(value, str):
        return special.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", value)
    if isinstance(value, dict):
        return {key: _marked(item, special, mark) for key, item in value.items()}
    return [_marked(item, special, mark) for item in value] if isinstance(value, list) else value


def _compile(template: str) -> Any:
    """Compile a template as transformers does: sandboxed, with its functions and marks."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %} ... {% endgeneration %}` around what the model writes."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's interface

        def parse(self, parser: Any) -> Any:
            """Surround the block's text with marks."""
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_surround")
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _surround(self, caller: Any) -> str:
            return f"{OPEN}{caller()}{CLOSE}"

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise DataError(f"chat template: not valid Jinja: {error}") from None


def _raise(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)
