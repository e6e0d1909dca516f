"""The JSON file of a unit output: what was counted, written last."""

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, ValidationError

from data.cleaning.tally import Tally
from data.described_files import read_text_file
from data.errors import DataError
from data.frozen_model import FrozenModel
from data.storage.atomic import write_text
from data.storage.bounded_json import parse_json
from data.store.manifest import fault_of

Edge = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$", max_length=40)]


class TallyValues(FrozenModel):
    """A `Tally` as JSON."""

    counts: dict[str, NonNegativeInt]
    histograms: dict[str, dict[Edge, NonNegativeInt]]


class UnitCounts(FrozenModel):
    """Counts of one work unit; without them, its output does not exist."""

    values: Annotated[TallyValues, Field(alias="tally")]
    tokens: NonNegativeInt
    num_bytes: NonNegativeInt
    """Input bytes that the unit accounts for."""

    @property
    def tally(self) -> Tally:
        """What cleaning counted."""
        return Tally.from_json(self.values.model_dump())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write_unit_counts` wrote.

        Raises:
            DataError: It is damaged.
            OSError: It cannot be read.
        """
        try:
            return cls.model_validate(parse_json(read_text_file(path)))
        except ValueError as error:
            detail = fault_of(error) if isinstance(error, ValidationError) else error
            raise DataError(f"{path}: damaged ({detail}): remove the build, start again") from None


def write_unit_counts(path: Path, tally: Tally, tokens: int, num_bytes: int) -> None:
    """Write the counts of one work unit."""
    values = {"tally": tally.to_json(), "tokens": tokens, "num_bytes": num_bytes}
    write_text(path, json.dumps(values))
