"""Names in an index: of files beside it, and nowhere else."""

from typing import Annotated

from pydantic import AfterValidator

MAX_NAME_BYTES = 255


def check_plain_name(name: str) -> str:
    """Return a name that is one of a file in its own directory.

    Raises:
        ValueError: It leads elsewhere, or is no file's name.
    """
    plain = name not in {"", ".", ".."} and not {"/", "\\"} & {*name} and name.isprintable()
    if not plain or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise ValueError("not the plain name of a file in this directory")
    return name


PlainName = Annotated[str, AfterValidator(check_plain_name)]
"""A key of a file's model: the name of a file beside it."""
