"""Records of `moe bench ... --out FILE`, each with the line that it stands in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from parallel.errors import ParallelError
from parallel.planner.calibration.records.bench_schema import Conditions, Hardware, Part

FORMAT = 1
"""Of records; another one was written by another moescale."""
_MOST_SHOWN = 40
"""Letters of a wrong value."""
PartT = TypeVar("PartT", bound=Part)


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """One line of a file."""

    origin: str
    """File and line, for messages."""
    values: Mapping[str, Any]

    @property
    def bench(self) -> str:
        """Which benchmark it is of.

        Raises:
            ParallelError: It is no record of `moe bench`, or of another moescale.
        """
        name, version = self.values.get("bench"), self.values.get("format")
        if not isinstance(name, str):
            raise ParallelError(f"{self.origin}: no record of moe bench: remove the line")
        if type(version) is not int or version != FORMAT:
            raise ParallelError(
                f"{self.origin}: format {_short(version)}, and this moescale reads {FORMAT}:"
                " measure it again"
            )
        return name

    @property
    def hardware(self) -> Hardware:
        """Where it was measured."""
        return self.read(Conditions, "conditions").hardware

    def read(self, kind: type[PartT], key: str) -> PartT:
        """Return one part of the record.

        Raises:
            ParallelError: A value is missing or impossible; names the first.
        """
        try:
            return kind.model_validate(self.values.get(key))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in (key, *first["loc"]))
            found = "" if first["type"] == "missing" else f" ({_short(first['input'])})"
            # Pydantic's own words name a class.
            meaning = "no object of keys" if first["type"] == "model_type" else first["msg"]
            raise ParallelError(
                f"{self.origin}: {field}{found}: {meaning}: measure it again with this moescale"
            ) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
