"""Jinja as Hugging Face tokenizers use it for chat templates, in a sandbox."""

import json
from datetime import UTC, datetime
from typing import Any

from data.errors import DataError

OPEN, CLOSE = chr(0xF8FE), chr(0xF8FF)
"""Surround an answer in the text of a template that marks answers."""


def compile_template(template: str) -> Any:
    """Compile a template as transformers does: sandboxed, with its functions and marks.

    Raises:
        DataError: It is not Jinja.
    """
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
