"""Examples of the README and of docs/, for tests that run them."""

import re
import tomllib
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
GENERATED = ("docs/_build", "docs/reference/commands", "docs/reference/config",
             "docs/reference/models.md")  # fmt: skip


def pages() -> list[str]:
    """Return the README and every page of docs/ that people write, from the checkout's root."""
    paths = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]
    return ["README.md", *(page for page in paths if not page.startswith(GENERATED))]


def blocks(page: str, language: str) -> list[str]:
    """Return a page's fenced blocks of one language."""
    text = Path(ROOT, page).read_text(encoding="utf-8")
    return [block for name, block in FENCE.findall(text) if name == language]


def toml_example(page: str, *, with_table: str) -> dict[str, Any]:
    """Return the one TOML example of a page that has this table."""
    tables = [tomllib.loads(block) for block in blocks(page, "toml")]
    (example,) = [table for table in tables if with_table in table]
    return example
