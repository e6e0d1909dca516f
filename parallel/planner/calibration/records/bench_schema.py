"""What a calibration reads of the records of each benchmark; the rest is left alone.

Numbers are checked strictly: a boolean, a text, NaN or a negative time is no measurement.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from parallel.precision.recipes import Precision

Count = Annotated[int, Field(gt=0, le=2**40)]
Seconds = Annotated[float, Field(ge=1e-9, le=1e6)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")]
Printable = Annotated[str, Field(pattern=r"^\P{C}{1,200}$")]


class Part(BaseModel):
    """Some keys of a record, strictly; others may stand beside them."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Time(Part):
    """Repeats of one measurement."""

    median: Seconds


class Hardware(Part):
    """Where a record was measured."""

    device: Literal["cpu", "cuda"]
    name: Printable | None
    """As the device calls itself."""
    ranks: Count
    threads: Count | None = None
    """Of one process; on a CPU only."""


class Conditions(Part):
    """What stands beside every result."""

    hardware: Hardware


class GemmCase(Part):
    """A product y[m, n] = x[m, k] w[n, k]^T, `groups` of them with m rows in all."""

    m: Count
    n: Count
    k: Count
    groups: Count
    dtype: Word


class GemmRow(Part):
    """One implementation."""

    burst_s: Time
    sustained_s: Seconds | None
    """None: not run back to back."""


class GemmResult(Part):
    """All implementations."""

    implementations: Annotated[list[GemmRow], Field(min_length=1)]


class AttentionCase(Part):
    """One causal attention."""

    batch_size: Count
    seq_len: Count
    num_heads: Count
    num_kv_heads: Count
    qk_head_dim: Count
    v_head_dim: Count
    dtype: Word


class AttentionRow(Part):
    """One of torch's backends."""

    backend: str
    forward_s: Time
    backward_s: Time


class AttentionResult(Part):
    """All backends."""

    backends: list[AttentionRow]


class LayerCase(Part):
    """One MoE layer with the tokens of one rank."""

    hidden_size: Count
    expert_ffn_hidden_size: Count
    shared_expert_ffn_hidden_size: Annotated[int, Field(ge=0, le=2**40)]
    num_experts: Count
    top_k: Count
    tokens: Count
    parallel: dict[str, Any] = {}
    precision: Precision = Precision()


class LayerRow(Part):
    """One way to spread tokens."""

    routing: str
    forward_s: Time
    backward_s: Time


class LayerResult(Part):
    """All ways."""

    routing: list[LayerRow]


class StepCase(Part):
    """A training step."""

    layers: Count
    precision: Precision = Precision()


class _Parameters(Part):
    total_parameters: Count


class _Split(Part):
    optimizer: Seconds


class StepResult(Part):
    """Its size, and its seconds by component."""

    parameters: _Parameters
    split_s: _Split


class CollectiveCase(Part):
    """One operation; `bytes` as nccl-tests counts."""

    operation: Literal["all_gather", "reduce_scatter", "all_reduce", "all_to_all"]
    bytes: Count
    ranks: Annotated[int, Field(ge=2, le=2**20)]
    nodes: Count


class CollectiveResult(Part):
    """The slowest rank's time."""

    time_s: Time
