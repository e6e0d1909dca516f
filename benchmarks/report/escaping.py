"""Text from run directories in a report's formats: shown as it is, never taken as code.

HTML is escaped by its template.
"""

import html
import re
from typing import Any

from data.plain_text import one_line

# A spreadsheet takes what begins so as a formula, even behind spaces.
_FORMULA = re.compile(r"\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_MARKDOWN = re.compile(r"([\\`*\[\]|])")
# At the beginning of a line or item: headings, quotes, items, rules, fences.
_MARKDOWN_START = re.compile(r"^\s*(?=[#>+~=-])")


def spreadsheet_text(value: Any) -> Any:
    """Return a CSV's value; text that would be a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if _FORMULA.match(text) else text


def markdown_text(value: Any) -> str:
    """Return a value as Markdown that shows it as it is, in one line."""
    text = html.escape(one_line(str(value)), quote=False)
    return _MARKDOWN_START.sub("\\\\", _MARKDOWN.sub(r"\\\1", text))


def plot_text(text: str) -> str:
    """Return text for a plot, where plotly takes tags and `%{...}`."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")
