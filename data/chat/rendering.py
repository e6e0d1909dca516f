"""A template's text for a conversation, with the variables that transformers gives templates."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from data.chat.answer_ends import TemplateError
from data.chat.jinja import (
    GENERATION,
    compile_template,
    limits,
    one_line,
    template_strings,
    template_variables,
)
from data.chat.messages import Message
from data.errors import DataError

OWN_VARIABLES = frozenset({"messages", "add_generation_prompt"})


class TemplateRenderer:
    """Renders conversations with one template."""

    def __init__(self, template: str, names: Mapping[str, str]) -> None:
        """Compile a template.

        Args:
            template: Its Jinja text.
            names: Variables that no row replaces, such as `eos_token`.

        Raises:
            DataError: It is not Jinja.
        """
        self._template, self._names = template, dict(names)
        self._compiled = compile_template(template)

    @cached_property
    def variables(self) -> frozenset[str]:
        """Variables that the template reads, other than messages and the names given to it."""
        read = template_variables(self._compiled, self._template)
        return read - OWN_VARIABLES - self._names.keys()

    @cached_property
    def strings(self) -> frozenset[str]:
        """Strings that the template holds, roles among them."""
        return template_strings(self._compiled, self._template)

    @property
    def marks_answers(self) -> bool:
        """Whether the template has `{% generation %}` marks."""
        return GENERATION.search(self._template) is not None

    def render(
        self,
        messages: Sequence[Message],
        variables: Mapping[str, Any],
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return a conversation's text, with marks around the answers that the template marks.

        Raises:
            TemplateError: The template refuses the conversation.
            DataError: It does not come to its end.
        """
        read = {name: value for name, value in variables.items() if name in self.variables}
        given = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            with limits():
                text: str = self._compiled.render(
                    {"tools": None, "documents": None} | read | self._names | given
                )
        except DataError:
            raise
        except Exception as error:  # a template raises whatever Python does with its values
            raise TemplateError(f"the template refuses it: {one_line(error)}") from None
        return text
