"""Jinja as Hugging Face tokenizers use it for chat templates, in a sandbox with limits."""

import json
import re
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data.errors import DataError

OPEN, CLOSE, BREAK = "\ud800", "\ud801", "\ud802"
"""Marks in a template's text: around an answer that the template marks, and inside a special token
that a message spells out. They are lone surrogates: no message can contain them."""
GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
RENDER_LIMIT_S = 5.0
"""Most processor time of one rendering, seconds. Templates take milliseconds."""
RENDER_LIMIT_BYTES = 1 << 29
"""Most memory that one rendering adds."""
PAGE_BYTES = resource.getpagesize()
MAX_REPEATED = 1 << 20
"""Longest text or list that a template makes with `*`."""
MAX_POWER_BITS = 1 << 12
"""Largest integer that a template makes with `**` or `*`, bits."""


class _Generation(Extension):
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


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also refuses values that take all memory or never come."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute `left * right` or `left ** right`, where the result stays small."""
        if _result_is_large(operator, left, right):
            raise SecurityError(f"the result of {operator} is too large")
        return super().call_binop(context, operator, left, right)


class _TimeoutError(BaseException):
    """The limit is reached. No `Exception`: nothing on the way may take it for one of its own."""


def compile_template(template: str) -> Any:
    """Compile a template as transformers does: sandboxed, with its functions and marks.

    Raises:
        DataError: It is not Jinja, or compiling it takes longer than `RENDER_LIMIT_S`.
    """
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    try:
        with limits():
            return environment.from_string(template)
    except (
        Exception
    ) as error:  # the compiler raises what Python's raises: RecursionError and others
        raise DataError(f"chat template: not valid Jinja: {one_line(error)}") from None


def template_variables(compiled: Any, template: str) -> frozenset[str]:
    """Return the variables that a template reads and does not set itself."""
    environment = compiled.environment
    names = meta.find_undeclared_variables(environment.parse(template))
    return frozenset(names - environment.globals.keys())


def template_strings(compiled: Any, template: str) -> frozenset[str]:
    """Return the string constants of a template's expressions."""
    constants = compiled.environment.parse(template).find_all(jinja2.nodes.Const)
    return frozenset(node.value for node in constants if isinstance(node.value, str))


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line; its kind where it says nothing."""
    said = " ".join(str(error).split())[:200]
    return (
        said
        if isinstance(error, jinja2.TemplateError) and said
        else f"{type(error).__name__} {said}".strip()
    )


@contextmanager
def limits() -> Iterator[None]:
    """Stop what runs inside after `RENDER_LIMIT_S`, or where it takes `RENDER_LIMIT_BYTES`.

    Only the main thread can be stopped: elsewhere there is no limit.

    Raises:
        DataError: It was stopped.
        MemoryError: It took too much memory.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TimeoutError

    earlier = signal.signal(signal.SIGVTALRM, stop)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_memory_limit_bytes(memory[0]), memory[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, RENDER_LIMIT_S)
    try:
        yield
    except _TimeoutError:
        raise DataError(
            f"chat template: not done after {RENDER_LIMIT_S:g} s of processor time, the limit for"
            " one conversation: it loops without end; mend it, or use another with --template"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, memory)
        signal.signal(signal.SIGVTALRM, earlier)


def _memory_limit_bytes(present: int) -> int:
    """Return a limit of this process's address space, no weaker than the present one."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            pages = int(file.read(20).split()[0])
    except OSError:  # not Linux
        return present
    wanted = pages * PAGE_BYTES + RENDER_LIMIT_BYTES
    return wanted if present == resource.RLIM_INFINITY else min(wanted, present)


def _result_is_large(operator: str, left: Any, right: Any) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        bits = (
            left.bit_length() * right
            if operator == "**"
            else left.bit_length() + right.bit_length()
        )
        return bits > MAX_POWER_BITS
    for value, times in ((left, right), (right, left)):
        if operator == "*" and isinstance(times, int) and hasattr(value, "__len__"):
            return len(value) * times > MAX_REPEATED
    return False


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as transformers' filter writes it; our marks stay marks."""
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return re.sub(r"[^\x00-\x7e]", _escaped, text) if ensure_ascii else text


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0] in {OPEN, CLOSE, BREAK} else json.dumps(match[0])[1:-1]


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
