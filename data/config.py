"""The `[data]` section: which token store feeds a run, and how."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from data.frozen_model import FrozenModel


class BlendChange(FrozenModel):
    """Other weights from a step on; samples before it stay the same."""

    step: int = Field(ge=1)
    """First optimizer step (from 0) with the new weights."""
    weights: dict[str, NonNegativeFloat]
    """Weight of each source from then on; sources not named are no longer read."""


class DataConfig(FrozenModel):
    """The `[data]` section of an experiment."""

    store: Path | None = None
    """Token store directory written by `moe data build`."""
    more_stores: tuple[Path, ...] = ()
    """Further stores made with the same tokenizer; their sources are named `FOLDER/SOURCE`."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sample order."""
    weights: dict[str, NonNegativeFloat] | None = None
    """Relative weight of each source. Default: the recipe's, or else every sample once an epoch."""
    changes: tuple[BlendChange, ...] = ()
    """Weights that change during the run; a change may be added to a run that is resumed, from a
    step it has not reached."""
    max_epochs: PositiveFloat | dict[str, PositiveFloat] | None = None
    """Most epochs of every source, or of each one named; a run that would exceed them is refused.
    Default: as many as the run needs, which `--dry-run` and the record state."""
    packing: Literal["concatenate", "best_fit"] = "concatenate"
    """How documents fill sequences: concatenated and cut every `seq_len` tokens, or uncut in the
    sequence they fit best (needs `moe data pack`)."""
    document_mask: bool = False
    """Keep attention inside documents: positions restart, `cu_seqlens` marks the boundaries, and
    the loss skips the prediction of a document's first token from the one before."""
    too_long: Literal["refuse", "cut", "drop"] = "refuse"
    """What happens to conversations longer than `seq_len` (`train.mode` sft and dpo)."""
    feed: Literal["torch", "dali"] = "torch"
    """What prepares batches: torch on the CPU, or NVIDIA DALI (extra `dali`)."""
    prefetch_steps: int = Field(default=2, ge=0, le=10_000)
    """Steps prepared ahead in the background; 0: none. Never changes the content of a batch."""
    workers: int = Field(default=1, ge=1, le=1024)
    """Threads that prepare them (more hide the latency of a network file system)."""
    pin_memory: bool | None = None
    """Put batches in page-locked memory. Default: where CUDA is available."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        steps = [change.step for change in self.changes]
        if steps != sorted(set(steps)):
            raise ValueError(f"changes: steps {steps} must rise")
        return self
