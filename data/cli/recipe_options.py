"""The recipe that a command line describes."""

from pathlib import Path
from typing import Any

from data.errors import DataError
from data.recipe import DataRecipe, make_recipe, read_recipe


def command_recipe(
    sources: list[Path],
    file: Path | None,
    source: dict[str, str | None],
    changes: dict[str, Any],
    overrides: list[str],
) -> DataRecipe:
    """Make the recipe of a command line.

    Args:
        sources: Paths, or none where `file` is given.
        file: A recipe file, or None.
        source: Settings of the one source that the paths form; None: not given.
        changes: Settings of the recipe; None: not given.
        overrides: `KEY=VALUE` texts.

    Raises:
        InputError: They contradict each other, or break a rule of recipes.
    """
    source = {key: value for key, value in source.items() if value is not None}
    changes = {key: value for key, value in changes.items() if value is not None}
    if (file is None) == (not sources):
        raise DataError("name SRC... or --recipe FILE: one of them")
    if file is None:
        return make_recipe(
            {"source": [{"paths": sources, **source}], **changes}, "--set", overrides
        )
    if source:
        raise DataError("--text-column and --separator: set them in the recipe, at each source")
    return make_recipe(
        read_recipe(file).model_dump(exclude_none=True) | changes, str(file), overrides
    )


def parse_build_shard(text: str) -> tuple[int, int]:
    """Parse `I/N`.

    Raises:
        DataError: It is not of that form.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise DataError(f"--shard {text}: write I/N, for example 1/4")
    return int(index), int(count)
