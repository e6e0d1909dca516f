"""What `index.json` of a checkpoint holds, checked key by key: others may have written it."""

from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from data.frozen_model import FrozenModel
from data.storage.plain_name import PlainName
from moe.checkpoint.optimizer_format import CommonState
from moe.checkpoint.regions import Region
from moe.config.tensor_names import EXTRA_STATE

FORMAT = 2
READABLE_FORMATS = (1, FORMAT)
"""Format 1 had other names of tensors: `first_format` gives them today's."""
_Length = Annotated[int, Field(strict=True, ge=0, lt=1 << 48)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class TensorShard(FrozenModel):
    """A stored shard of a global tensor; `offset` and `shape` in elements."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    key: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    global_shape: Annotated[tuple[_Length, ...], Field(alias="whole", max_length=64)]
    offset: tuple[_Length, ...]
    shape: tuple[_Length, ...]
    file: PlainName
    name: str

    @property
    def is_pickled(self) -> bool:
        """Whether it is a state that Transformer Engine pickled, which is never read."""
        return self.key.partition("/")[0].endswith(EXTRA_STATE)

    def as_json(self) -> dict[str, Any]:
        """Return the shard's entry in the index, whose keys are the format's."""
        return self.model_dump(by_alias=True)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the tensor in the file; its leading axes of size 1 may be left out there."""
        return self.shape

    def stored_region(self, region: Region) -> Region:
        """Return a region of this shard as one of the tensor in the file."""
        return region

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not len(self.global_shape) == len(self.offset) == len(self.shape):
            raise ValueError("whole, offset and shape have unlike numbers of axes")
        for whole, offset, size in zip(self.global_shape, self.offset, self.shape, strict=True):
            if offset + size > whole:
                raise ValueError(f"reaches beyond the tensor's {list(self.global_shape)}")
        return self


class CheckpointIndex(FrozenModel):
    """The index: where each shard lies, what belongs to no tensor, and files' checksums."""

    format: Literal[1, 2]
    common: CommonState
    files: dict[PlainName, Sha256]
    parts: tuple[TensorShard, ...]
    checksum: Sha256 | None = None
    """Of the rest; checkpoints of early versions have none."""

    @property
    def keys(self) -> set[str]:
        """The names of all tensors."""
        return {part.key for part in self.parts if not part.is_pickled}

    @model_validator(mode="after")
    def _check(self) -> Self:
        shapes: dict[str, tuple[int, ...]] = {}
        elements: dict[str, int] = {}
        for part in self.parts:
            if part.file not in self.files:
                raise ValueError(f"{part.key}: {part.file} is not among `files`")
            if shapes.setdefault(part.key, part.global_shape) != part.global_shape:
                raise ValueError(f"{part.key}: its parts are of tensors of unlike shapes")
            elements[part.key] = elements.get(part.key, 0) + prod(part.shape)
        for key, count in elements.items():
            if count > prod(shapes[key]):
                raise ValueError(f"{key}: its parts overlap")
        return self
