"""`true` and `false` where a configuration wants numbers: pydantic takes them for 1 and 0."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel


def truth_for_number(kind: type[BaseModel], values: Mapping[str, Any]) -> str | None:
    """Return the dotted key of the first truth value whose field takes numbers only, or None."""
    return next(_keys(kind, values), None)


def _keys(kind: type[BaseModel], values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name not in kind.model_fields:
            continue
        types = _types(kind.model_fields[name].annotation)
        wants_number = bool(types & {int, float}) and bool not in types
        sections = [one for one in types if issubclass(one, BaseModel)]
        for key, item in _leaves(name, value):
            if isinstance(item, bool) and wants_number:
                yield key
            elif isinstance(item, Mapping):
                for section in sections:
                    yield from (f"{key}.{inner}" for inner in _keys(section, item))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a value with its key; of a list or a table, its items too."""
    yield key, value
    if isinstance(value, list | tuple):
        yield from ((f"{key}.{number}", item) for number, item in enumerate(value))
    elif isinstance(value, Mapping):
        yield from ((f"{key}.{name}", item) for name, item in value.items())


def _types(annotation: Any) -> set[type]:
    """Return the types that an annotation is made of; of a literal, those of its values."""
    if inner := get_args(annotation):
        return {one for argument in inner for one in _types(argument)}
    return {annotation if isinstance(annotation, type) else type(annotation)}
