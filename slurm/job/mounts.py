"""Folders that a container must mount so that what a run reads is there, links and all."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

MAX_HOPS = 40
"""Links that the kernel follows in one path."""
MAX_ENTRIES = 100_000
"""Entries of one input that are looked at for links."""


def folders_of(inputs: Iterable[Path]) -> tuple[str, ...]:
    """Return the folders of inputs, each name under which a link leads to one among them."""
    found = {
        str(name)
        for path in inputs
        for one in (path, *links_inside(path))
        for name in names_of(one)
    }
    return tuple(sorted(found))


def names_of(path: Path) -> list[Path]:
    """Return an absolute path, and what it becomes with each link in it followed in turn."""
    names = [Path(os.path.normpath(path))]
    while len(names) <= MAX_HOPS and (followed := _follow_first_link(names[-1])):
        names.append(followed)
    return names


def links_inside(path: Path) -> list[Path]:
    """Return the folders to which links below a folder lead, as in a cache of a model hub."""
    targets = set()
    for entry in islice(_entries(path), MAX_ENTRIES):
        if entry.is_symlink():
            target = Path(os.path.normpath(entry.parent / os.readlink(entry)))
            targets.add(target if target.is_dir() else target.parent)
    return sorted(targets)


def _entries(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        yield from (Path(folder) / name for name in (*folders, *files))


def _follow_first_link(path: Path) -> Path | None:
    for part in (*reversed(path.parents), path):
        if part.is_symlink():
            target = part.parent / os.readlink(part)
            return Path(os.path.normpath(target / path.relative_to(part)))
    return None
