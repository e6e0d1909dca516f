"""What the files of a run directory hold, checked key by key: others may have written them.

Keys that these classes do not name are kept: callbacks and later versions add some.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    model_validator,
)

from data.plain_text import encodable


def check_number(value: Any) -> Any:
    """Check that a value of a file is a number that every reader can hold.

    Raises:
        ValueError: It is none, is not finite, has a size that no run measures, or is an integer
            that no float holds.
    """
    if type(value) not in {int, float} or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is not a finite number")
    if abs(value) > (MOST_EXACT if isinstance(value, int) else LARGEST):
        raise ValueError(f"{value!r:.40} is larger than any number of a run")
    if 0 < abs(value) < SMALLEST:
        raise ValueError(f"{value!r:.40} is smaller than any number of a run but 0")
    return value


MOST_EXACT = 1 << 53
"""Above it, not every integer is a float."""
LARGEST = 1e39
"""Of floats: above every FP32 number, which a loss or a gradient norm may be; what reports make of
them, by prices and numbers of devices, stays finite."""
SMALLEST = 1e-60
"""Below every FP32 number; a ratio of two numbers of runs stays finite."""
Count = Annotated[int, Field(strict=True, ge=0, le=1 << 62)]
Number = Annotated[float, BeforeValidator(check_number)]
Amount = Annotated[float, BeforeValidator(check_number), Field(ge=0)]
"""A number that is never negative."""
Text = Annotated[
    str,
    # Half a character is no reason to refuse a run: who shows the text replaces it.
    BeforeValidator(lambda value: encodable(value) if isinstance(value, str) else value),
    Field(strict=True, max_length=100_000),
]


class Section(BaseModel):
    """A part of a file; unknown keys are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class MeasurementValues(Section):
    """A measurement (parallel/measurement/measurement.py)."""

    value: Number | None = None
    unit: Text
    source: Text
    boundary: Text | None = None
    kind: Literal["measured", "modelled", "published"] | None = None
    uncertainty: Amount | None = None
    reason: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.value is None and not self.reason:
            raise ValueError("neither a value, nor the reason why there is none")
        if self.value is not None and self.kind is None:
            raise ValueError("a value of no kind: measured, modelled or published")
        return self


class PhaseValues(MeasurementValues):
    """Energy and time of a phase."""

    seconds: Amount


class Overhead(Section):
    """What metering took."""

    share_of_train_time: Amount | None = None


class EnergyValues(Section):
    """What the run's meter said."""

    source: Text | None = None
    kind: Text | None = None
    boundary: Text | None = None
    note: Text | None = None
    total: MeasurementValues | None = None
    train: MeasurementValues | None = None
    per_token: MeasurementValues | None = None
    mean_power: MeasurementValues | None = None
    idle_power: MeasurementValues | None = None
    phases: dict[str, PhaseValues] | None = None
    overhead: Overhead | None = None


class Environment(Section):
    """Software that the run ran on."""

    python: Text | None = None
    platform: Text | None = None
    packages: dict[str, Text | None] | None = None


class Commit(Section):
    """State of the code."""

    commit: Text | None = None
    dirty: StrictBool | None = None


class Hardware(Section):
    """What the run ran on."""

    device: Text | None = None
    name: Text | None = None
    ranks: Annotated[Count, Field(ge=1)] | None = None
    fabric: Text | None = None


class Peak(Section):
    """By which model FLOPs utilization was computed."""

    flops_per_s: Amount | None = None
    median_flops_per_s: Amount | None = None
    lowest_flops_per_s: Amount | None = None
    source: Text | None = None


class Ledger(Section):
    """Parameters, bytes and FLOPs (moe/cost/ledger.py)."""

    total_parameters: Annotated[Count, Field(ge=1)] | None = None
    active_parameters: Annotated[Count, Field(ge=1)] | None = None
    training_flops_per_token: Annotated[Amount, Field(gt=0)] | None = None
    bf16_weight_bytes: Amount | None = None
    bf16_training_state_bytes: Amount | None = None
    flop_convention: Text | None = None


class Goodput(Section):
    """What allocated time was used for."""

    useful_share_of_time: Amount | None = None


class StartValues(Section):
    """One start of the run (moe/runs/goodput.py)."""

    ranks: Annotated[Count, Field(ge=1)]
    first_step: Count
    first_tokens: Count
    allocated_s: Amount
    tokens: Count
    ended: Text | None


class RecordValues(Section):
    """`record.json`."""

    format: Annotated[int, Strict()] | None = None
    run_id: Text | None = None
    name: Text | None = None
    status: Text | None = None
    started_at: Text | None = None
    finished_at: Text | None = None
    command: Text | None = None
    environment: Environment | None = None
    git: Commit | None = None
    hardware: Hardware | None = None
    execution: dict[str, Any] | None = None
    layout: dict[str, Number | StrictBool | Text | list[Any] | None] | None = None
    ledger: Ledger | None = None
    peak: Peak | None = None
    load: MeasurementValues | None = None
    energy: EnergyValues | None = None
    energy_own: EnergyValues | None = None
    starts: list[StartValues] | None = None
    goodput: Goodput | None = None
    failed_saves: list[Text] | None = None
    steps: Count | None = None
    rejected_steps: Count | None = None
    tokens: Count | None = None
    positions: Count | None = None
    training_flops: Amount | None = None
    wall_time_s: Amount | None = None
    tokens_per_s: Amount | None = None
    flops_per_s: Amount | None = None
    mfu: Amount | None = None
    final_loss: Number | None = None
    final_loss_reason: Text | None = None
    train_loss: Number | None = None


class StepRow(Section):
    """A row of any of the files."""

    step: Count


class MetricsRow(StepRow):
    """A row of `metrics.jsonl`."""

    __pydantic_extra__: dict[str, Number | StrictBool | Text | None]

    tokens: Count
    positions: Count | None = None
    training_flops: Amount | None = None
    stream_hash: Text | None = None
    loss: Number | None = None
    load_balancing_loss: Number | None = None
    z_loss: Number | None = None
    grad_norm: Number | None = None
    learning_rate: Number | None = None
    step_time_s: Amount | None = None
    tokens_per_s: Amount | None = None
    flops_per_s: Amount | None = None
    mfu: Amount | None = None
    data_stall_s: Amount | None = None
    data_stall_share: Amount | None = None
    allocated_s: Amount | None = None
    energy_joules: Number | None = None


class EvaluationRow(StepRow):
    """A row of `evaluations.jsonl`."""

    tokens: Count
    positions: Count | None = None
    training_flops: Amount | None = None
    loss: Number | None


class ExpertLoadRow(StepRow):
    """A row of `expert_load.jsonl`: tokens of each expert of each layer."""

    layers: Annotated[list[Count], Field(min_length=1)]
    counts: list[Annotated[list[Amount], Field(min_length=1)]]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.counts) != len(self.layers) or len({len(row) for row in self.counts}) > 1:
            raise ValueError("counts are not a number for each expert of each of `layers`")
        return self


class RoutingRow(StepRow):
    """A row of `routing.jsonl`: measures, each a number for every layer."""

    __pydantic_extra__: dict[str, list[Number | None]]

    layers: Annotated[list[Count], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, numbers in (self.__pydantic_extra__ or {}).items():
            if len(numbers) != len(self.layers):
                raise ValueError(f"{name} is not a number for each of `layers`")
        return self


class RoutingMapsValues(Section):
    """`routing_maps.json`: expert load by source, and coactivation."""

    layers: list[Count]
    sources: list[Text]
    counts: list[list[list[Amount]]]
    """[layer][source][expert]"""
    together: list[list[list[Amount]]]
    """[layer][expert][expert]"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        experts = {len(row) for layer in self.counts for row in layer}
        layers, sources = len(self.layers), len(self.sources)
        if len(self.counts) != layers or any(len(layer) != sources for layer in self.counts):
            raise ValueError("counts are not of each of `sources` in each of `layers`")
        rows = {len(row) for layer in self.together for row in layer}
        rows |= {len(layer) for layer in self.together}
        if len(self.together) != layers or len(experts) > 1 or (sources and rows != experts):
            raise ValueError("counts and together are not of the same experts")
        return self


class MoeValues(Section):
    """`[model.moe]` of an experiment."""

    num_experts: Annotated[Count, Field(ge=1)] | None = None
    top_k: Annotated[Count, Field(ge=1)] = 1
    forced_balance: StrictBool | Text | None = None


class ModelValues(Section):
    """`[model]` of an experiment."""

    vocab_size: Annotated[Count, Field(ge=1)] | None = None
    moe: MoeValues | None = None


class TrainValues(Section):
    """`[train]` of an experiment."""

    seed: Count = 0
    seq_len: Count | None = None


class ExperimentValues(Section):
    """`experiment.toml`, as far as reports read it: runs of earlier versions are read as well."""

    model: ModelValues | None = None
    train: TrainValues | None = None
    parallel: dict[str, Any] | None = None
    precision: dict[str, Any] | None = None
    energy: dict[str, Any] | None = None
