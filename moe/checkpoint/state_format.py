"""What `state.json` of a checkpoint holds: how far the run was, and what later steps depend on."""

from typing import Annotated, Any

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, Strict

_Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 62)]
_Number = Annotated[float, Strict(), AllowInfNan(False)]


class LoaderState(BaseModel):
    """Where the data loader was (`Loader.state_dict`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    next_sample: _Count
    fingerprint: str


class CheckpointState(BaseModel):
    """The state. Which keys there are depends on what was saved: a run, a dump, or a conversion.

    Keys beyond these are kept: later versions add some.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    step: _Count
    tokens: _Count | None = None
    rejected_steps: _Count | None = None
    stream_hash: Annotated[str, Field(pattern=r"^[0-9a-f]*$", max_length=64)] | None = None
    train_time_s: Annotated[_Number, Field(gt=0)] | None = None
    """Speed is counted by it."""
    train_loss: _Number | None = None
    training_flops: Annotated[_Number, Field(ge=0)] | None = None
    data: LoaderState | None = None
    guard: list[_Number] | None = None
    """Losses of accepted steps."""
    fp8: list[list[list[_Number | list[_Number]]]] | None = None
    """Amaxes [layer][matmul][expert][operand] of emulated FP8 with delayed scaling; from older
    versions [layer][matmul][operand]."""
    observers: list[dict[str, Any] | None] | None = None
    """A state for each callback."""
    samples: Annotated[list[_Count], Field(min_length=2, max_length=2)] | None = None
    """Of a dump: first sample of the rejected step, and one past its last."""
    loss: _Number | None = None
    grad_norm: _Number | None = None
    fault: str | None = None
    action: str | None = None

    def values(self) -> dict[str, Any]:
        """Return the state as it lies in the file."""
        return self.model_dump(exclude_unset=True)


RUN_KEYS = ("tokens", "stream_hash", "train_time_s", "data")
"""What a run needs to go on, beside its step."""
DUMP_KEYS = ("samples", "fault", "data")
"""What is needed to replay a rejected step."""
