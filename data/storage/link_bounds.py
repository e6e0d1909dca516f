"""Where the links of a folder may lead: whoever made it could link to any file of its reader."""

import os
from pathlib import Path


class LinkBounds:
    """A folder, and what counts as inside it.

    A file of Hugging Face's cache is a link (`snapshots/REVISION/NAME` to `blobs/HASH`): the blobs
    beside its snapshots count as inside a snapshot.
    """

    def __init__(self, folder: str | Path) -> None:
        real = Path(os.path.realpath(folder))
        self._places = [os.fspath(real)]
        for place in (real, *real.parents):
            if place.parent.name == "snapshots":
                self._places.append(os.fspath(place.parent.parent / "blobs"))

    def target_outside(self, path: str | Path) -> str | None:
        """Return the path outside that a path leads to; None: it stays inside."""
        target = os.path.realpath(path)
        is_inside = any(Path(target).is_relative_to(place) for place in self._places)
        return None if is_inside else target
