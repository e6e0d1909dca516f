"""Templates of pages whose figures are all drawn by one script."""

from collections.abc import Mapping
from typing import Any


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
