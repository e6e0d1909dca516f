"""What a calibration reads of records of `moe bench ... --out FILE`; the rest is left alone.

Numbers are checked strictly: a boolean, a text, NaN or a negative time is no measurement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parallel.errors import ParallelError
from parallel.precision.recipes import Precision

FORMAT = 1
"""Of records; another one was written by another moescale."""
Count = Annotated[int, Field(gt=0, le=2**40)]
Seconds = Annotated[float, Field(ge=1e-9, le=1e6)]
_MOST_SHOWN = 40
"""Letters of a wrong value."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Time(_Part):
    """Repeats of one measurement."""

    median: Seconds


class Hardware(_Part):
    """Where a record was measured."""

    device: Literal["cpu", "cuda"]
    name: str | None
    """As the device calls itself."""
    ranks: Count
    threads: Count | None = None
    """Of one process; on a CPU only."""


class _Conditions(_Part):
    hardware: Hardware


class GemmCase(_Part):
    """A product y[m, n] = x[m, k] w[n, k]^T, `groups` of them with m rows in all."""

    m: Count
    n: Count
    k: Count
    groups: Count
    dtype: str


class GemmRow(_Part):
    """One implementation."""

    burst_s: Time
    sustained_s: Seconds | None
    """None: not run back to back."""


class GemmResult(_Part):
    implementations: Annotated[list[GemmRow], Field(min_length=1)]


class AttentionCase(_Part):
    """One causal attention."""

    batch_size: Count
    seq_len: Count
    num_heads: Count
    num_kv_heads: Count
    qk_head_dim: Count
    v_head_dim: Count
    dtype: str


class AttentionRow(_Part):
    """One of torch's backends."""

    backend: str
    forward_s: Time
    backward_s: Time


class AttentionResult(_Part):
    backends: list[AttentionRow]


class LayerCase(_Part):
    """One MoE layer with the tokens of one rank."""

    hidden_size: Count
    expert_ffn_hidden_size: Count
    shared_expert_ffn_hidden_size: Annotated[int, Field(ge=0, le=2**40)]
    num_experts: Count
    top_k: Count
    tokens: Count
    parallel: dict[str, Any] = {}
    precision: Precision = Precision()


class LayerRow(_Part):
    """One way to spread tokens."""

    routing: str
    forward_s: Time
    backward_s: Time


class LayerResult(_Part):
    routing: list[LayerRow]


class StepCase(_Part):
    """A training step."""

    layers: Count
    precision: Precision = Precision()


class _Parameters(_Part):
    total_parameters: Count


class _Split(_Part):
    optimizer: Seconds


class StepResult(_Part):
    parameters: _Parameters
    split_s: _Split


class CollectiveCase(_Part):
    """One operation; `bytes` as nccl-tests counts."""

    operation: Literal["all_gather", "reduce_scatter", "all_reduce", "all_to_all"]
    bytes: Count
    ranks: Annotated[int, Field(ge=2, le=2**20)]
    nodes: Count


class CollectiveResult(_Part):
    time_s: Time


PartT = TypeVar("PartT", bound=_Part)


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
                f"{self.origin}: format {_short(version)}, and this moescale reads {FORMAT}: measure"
                " it again"
            )
        return name

    @property
    def hardware(self) -> Hardware:
        """Where it was measured."""
        return self.read(_Conditions, "conditions").hardware

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
            raise ParallelError(
                f"{self.origin}: {field}{found}: {first['msg']}: measure it again with this moescale"
            ) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
