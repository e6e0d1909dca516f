"""The optimizer's plain values in a checkpoint, as megatron-core saves torch's parameter groups.

They come back into the optimizer as they are, so a value of another kind would change training
or end it long after loading. Keys that other versions of torch or megatron-core add are kept.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StrictBool,
    Tag,
    model_validator,
)

_NotNegative = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0)]
_Beta = Annotated[float, Strict(), Field(ge=0, lt=1)]
_Step = Annotated[int, Field(strict=True, ge=0, lt=1 << 53)]


class ParameterGroup(BaseModel):
    """Settings of one group of parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    is_expert_parallel: StrictBool
    wd_mult: _NotNegative
    lr_mult: _NotNegative
    lr: _NotNegative
    max_lr: _NotNegative | None = None
    min_lr: _NotNegative | None = None
    betas: Annotated[list[_Beta], Field(min_length=2, max_length=2)]
    eps: _NotNegative
    weight_decay: _NotNegative
    step: _Step | None = None
    is_decoupled_lr: StrictBool | None = None
    default_config: StrictBool | None = None
    amsgrad: StrictBool | None = None
    maximize: StrictBool | None = None
    foreach: StrictBool | None = None
    capturable: StrictBool | None = None
    differentiable: StrictBool | None = None
    fused: StrictBool | None = None
    decoupled_weight_decay: StrictBool | None = None


class TorchOptimizer(BaseModel):
    """What torch's optimizer says of itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    param_groups: list[ParameterGroup]


class OptimizerState(BaseModel):
    """One of megatron-core's optimizers; empty where its rank has no parameters of that kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    optimizer: TorchOptimizer | None = None
    """Of those that keep parameters of their own: distributed, or in 16 bits."""
    param_groups: list[ParameterGroup] | None = None
    """Of the plain one in FP32."""
    param_state_sharding_type: Literal["fully_reshardable"] | None = None
    """Of the distributed optimizer."""

    @property
    def steps(self) -> set[int | None]:
        """Step counts of the groups; a group that was never updated may have none."""
        groups = self.param_groups if self.optimizer is None else self.optimizer.param_groups
        return {group.step for group in groups or ()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimizer is None and self.param_groups is None:
            if self.model_fields_set:
                raise ValueError("neither optimizer nor param_groups")
            return self
        steps = self.steps
        if self.param_state_sharding_type is None:
            steps -= {None}  # a group without parameters may have none
        if len(steps) > 1:
            raise ValueError("param_groups are of unlike steps")
        return self


def _kind(value: Any) -> str:
    is_chained = isinstance(value, dict) and bool(value) and all(str(k).isdigit() for k in value)
    return "chained" if is_chained else "one"


_NumberText = Annotated[str, Field(pattern=r"^[0-9]{1,4}$")]
_Chained = dict[_NumberText, OptimizerState]


class CommonState(BaseModel):
    """Values that are the same on every rank."""

    model_config = ConfigDict(extra="allow", frozen=True)

    optimizer: (
        Annotated[
            Annotated[OptimizerState, Tag("one")] | Annotated[_Chained, Tag("chained")],
            Discriminator(_kind),
        ]
        | None
    ) = None
    """One, or several by number: dense parameters and experts have their own."""

    @property
    def _optimizers(self) -> list[OptimizerState]:
        own = self.optimizer
        return list(own.values()) if isinstance(own, dict) else [] if own is None else [own]

    @model_validator(mode="after")
    def _check(self) -> Self:
        # megatron-core ends where distributed optimizers differ, a group without steps included.
        distributed = [one.steps for one in self._optimizers if one.param_state_sharding_type]
        if len(set().union(*distributed)) > 1:
            raise ValueError("optimizer: its parts are of unlike steps")
        return self

    def optimizer_steps(self) -> set[int]:
        """Return the step counts of all optimizers."""
        return {step for one in self._optimizers for step in one.steps if step is not None}

    def values(self) -> dict[str, Any]:
        """Return them as they lie in the file."""
        return self.model_dump(exclude_unset=True)
