"""Names in an index or a manifest: of files in its folder, and nowhere else."""

from typing import Annotated, TypeGuard

from pydantic import AfterValidator

MAX_NAME_BYTES = 255


def is_plain_name(name: object) -> TypeGuard[str]:
    """Whether this is the name of a file in whatever folder it is joined to, links aside."""
    return (
        isinstance(name, str)
        and name not in {"", ".", ".."}
        and not {"/", "\\"} & {*name}
        and name.isprintable()
        and len(name.encode()) <= MAX_NAME_BYTES
    )


def is_inner_name(name: str) -> bool:
    """Whether this is the name of a file in such a folder, or in folders inside it."""
    return all(map(is_plain_name, name.split("/")))


def plain_name(name: str) -> str:
    """Return a name that is one of a file in its own directory.

    Raises:
        ValueError: It leads elsewhere, or is no file's name.
    """
    if not is_plain_name(name):
        raise ValueError("not the plain name of a file in this directory")
    return name


def _inner_name(name: str) -> str:
    if not is_inner_name(name):
        raise ValueError("not the name of a file inside the folder")
    return name


PlainName = Annotated[str, AfterValidator(plain_name)]
"""A key of a file's model: the name of a file beside it."""
InnerName = Annotated[str, AfterValidator(_inner_name)]
"""A key of a file's model: the name of a file beside it, or in folders beside it."""
