"""What pages share: templates whose values are escaped, plotly's library, figures as data."""

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any

from data.plain_text import printable_values


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Return a template of `templates/` as HTML, every value escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmarks.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def embedded_json(data: Mapping[str, Any]) -> str:
    """Return a page's data as JSON inside a script element."""
    # A "<" inside the data could end the element.
    return json.dumps(printable_values(data), allow_nan=False).replace("<", "\\u003c")


@cache
def packed_plotly() -> str:
    """Return plotly's library, gzip in base64, as the page's script unpacks it.

    It is nearly all of a page, and two fifths as long so.
    """
    from plotly.offline import get_plotlyjs

    return b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
