"""Examples of the README and of docs/, for tests that run them."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"`([\w-]+\.(?:toml|py))`")
ENDINGS = {"toml": "toml", "python": "py"}
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


def named_files(page: str) -> dict[str, str]:
    """Return the files that a page shows: blocks whose paragraph before ends in a file's name."""
    text = Path(ROOT, page).read_text(encoding="utf-8")
    found = {}
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        names = [n for n in FILE_NAME.findall(before) if n.endswith(f".{ENDINGS.get(match[1])}")]
        if names:
            found[names[-1]] = match[2]
    return found


def moe_commands(page: str) -> list[list[str]]:
    """Return the words after `moe` of every command in a page's bash blocks, in its order."""
    lines = (line for text in blocks(page, "bash") for line in text.splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("moe ")]


def toml_example(page: str, *, with_table: str) -> dict[str, Any]:
    """Return the one TOML example of a page that has this table."""
    tables = [tomllib.loads(block) for block in blocks(page, "toml")]
    (example,) = [table for table in tables if with_table in table]
    return example
