"""Templates of others: they fail in one line, come to an end, and stay in the sandbox."""

import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from data.chat import jinja
from data.chat.answer_ends import TemplateError
from data.chat.jinja import compile_template, limits
from data.chat.template import ChatTemplate
from data.errors import DataError
from data.tokenization.tokenizer import byte_tokenizer
from tests.support.chat_helpers import ask, build_rows

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLINGS = (
    "{% set ns = namespace(x='aaaaaaaa') %}"
    "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
)
CALLS = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{{ raise_exception('no\nway') }}", "no way"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ '%d' % 'x' }}", "TypeError"),
        ("{{ messages.a.b }}", "has no attribute 'a'"),
        ("{{ range(10 ** 9) }}", "Range too big"),
        ("{{ 9 ** 9 ** 9 ** 9 ** 9 }}", r"result of \*\* is too large"),
        ("{{ 'a' * 10 ** 9 }}", r"result of \* is too large"),
        ("{{ messages * 10 ** 9 }}", r"result of \* is too large"),
        (DOUBLINGS, "MemoryError"),
        ("{{ 'a' | center(10 ** 12) }}", "MemoryError"),
        ("{{ messages.append(1) }}", "not safe|unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ lipsum.__globals__['os'] }}", "unsafe"),
        ("{{ '{0.__class__.__mro__}'.format(1) }}", "unsafe"),
    ],
)
def test_a_template_that_raises(
    text: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jinja, "RENDER_LIMIT_BYTES", 1 << 24)
    template = ChatTemplate(text, byte_tokenizer())
    with pytest.raises(TemplateError, match=fault) as caught:
        template.encode(ask("q", "a")["messages"])
    assert "\n" not in str(caught.value)
    (tmp_path / "t.jinja").write_text(text)
    with pytest.raises(DataError, match=r"no example is left \(template: 1\); the first: .*line 1"):
        build_rows(tmp_path, [ask("q", "a")], template=str(tmp_path / "t.jinja"))


@pytest.mark.parametrize("text", [LOOPS, CALLS, "{{ lipsum(n=10**8) }}"])
def test_a_template_without_end(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja, "RENDER_LIMIT_S", 0.05)
    (tmp_path / "t.jinja").write_text(text)
    with pytest.raises(DataError, match=r"not done after 0.05 s of processor time, the limit"):
        build_rows(tmp_path, [ask("q", "a")], template=str(tmp_path / "t.jinja"))
    assert not (tmp_path / "store").exists()


def test_limits_end_with_what_they_limit() -> None:
    def present() -> tuple[Any, ...]:
        return signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)

    before = present()
    with pytest.raises(KeyError), limits():
        assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] > 0
        assert signal.getsignal(signal.SIGVTALRM) is not before[0]
        assert resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        raise KeyError
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0
    assert present() == before


def test_other_threads_render_without_a_limit() -> None:
    texts: list[str] = []
    template = ChatTemplate("{{ messages[0].content }}", byte_tokenizer())
    thread = threading.Thread(
        target=lambda: texts.append(template.render([{"role": "user", "content": "hi"}]))
    )
    thread.start()
    thread.join()
    assert texts == ["hi"]


@pytest.mark.parametrize("text", ["{% for %}", "{% if 1 %}" * 2000, "{{ " + "(" * 5000 + " }}"])
def test_not_jinja(text: str) -> None:
    with pytest.raises(DataError, match=r"^chat template: not valid Jinja: [^\n]+$"):
        compile_template(text)


@pytest.mark.parametrize("content", [b"caf\xe9", b"{{ '\xff' }}"])
def test_a_template_file_that_is_not_utf8(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_bytes(content)
    with pytest.raises(DataError, match="t.jinja: not UTF-8 .*save it as UTF-8"):
        build_rows(tmp_path, [ask("q", "a")], template=str(tmp_path / "t.jinja"))


def test_json_escapes_all_but_marks() -> None:
    value = {"a": f"caf\xe9 {jinja.BREAK}\U0001f600\x7f"}
    render = compile_template("{{ v | tojson(ensure_ascii=True) }}").render
    assert render(v=value) == f'{{"a": "caf\\u00e9 {jinja.BREAK}\\ud83d\\ude00\\u007f"}}'
