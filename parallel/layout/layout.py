"""The `[parallel]` section: a layout, its own rules, and the layers of each pipeline chunk."""

from itertools import accumulate
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from parallel.frozen_model import FrozenModel

RecomputeModule = Literal[
    "core_attn", "layernorm", "mlp", "moe", "moe_act", "mla_up_proj", "shared_experts"
]
TE_RECOMPUTE_MODULES: tuple[RecomputeModule, ...] = ("moe_act",)
"""What only the experts of Transformer Engine can recompute alone."""

STORAGE_TIMEOUT_S = 7200.0
"""Seconds that a checkpoint may take: 7 TB at 1 GB/s."""
MAX_TIMEOUT_S = 365 * 86_400.0
"""What waits for ranks takes no longer time."""


class Layout(FrozenModel):
    """The `[parallel]` section: how one model is distributed over ranks.

    Attention layers use `tp * cp * pp * dp` ranks; expert layers fold the same ranks into
    `etp * ep * pp * edp` (arXiv:2504.14960). `dp` and `edp` follow from the number of ranks.
    """

    tp: int = Field(default=1, ge=1)
    """Tensor-parallel ranks of attention and dense layers."""
    sp: bool | None = None
    """Sequence parallelism: shard activations between tensor-parallel regions. Default: tp > 1."""
    pp: int = Field(default=1, ge=1)
    """Pipeline stages."""
    vpp: int = Field(default=1, ge=1)
    """Virtual pipeline chunks per stage (interleaved schedule)."""
    ends_count_as_layers: bool = False
    """Count input embedding and LM head as one layer each when layers are assigned to stages: the
    first and the last chunk hold one layer fewer. For depths like Llama 3.1 405B's 126."""
    stage_layers: tuple[PositiveInt, ...] | None = None
    """Layers of each stage, where stages are uneven; with `vpp`, of each of the pp * vpp chunks in
    the model's order (chunk c of stage s is number c * pp + s)."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activations recomputed in the backward pass: those of `recompute_modules`, or of all layers,
    which then save only their input (arXiv:2205.05198)."""
    recompute_modules: tuple[RecomputeModule, ...] = ("core_attn",)
    """With `selective`: modules of a layer, by megatron-core's names."""
    ep: int = Field(default=1, ge=1)
    """Expert-parallel ranks."""
    etp: int | None = Field(default=None, ge=1)
    """Tensor-parallel ranks inside an expert. Default: 1."""
    cp: int = Field(default=1, ge=1)
    """Context-parallel ranks: each sequence is sharded over this many."""
    context_exchange: Literal["p2p", "all_gather", "a2a"] | None = None
    """How attention sees the tokens of other context-parallel ranks (megatron-core's
    `cp_comm_type`): keys and values pass along a ring, or are gathered, or each rank takes the
    whole sequence of a part of the heads. Default: `p2p`; kernel set torch has `all_gather`."""
    dispatcher: Literal["allgather", "alltoall", "flex"] = "alltoall"
    """Token dispatcher of the expert layers."""
    flex_backend: Literal["deepep", "hybridep"] = "deepep"
    """Library behind `dispatcher = "flex"`; needs GPUs."""
    overlap_grad_reduce: bool = False
    """Reduce gradients of finished layers while the backward pass continues."""
    overlap_param_gather: bool = False
    """Gather updated parameters while the next forward pass begins (distributed optimizer)."""
    overlap_experts: bool = False
    """Overlap one micro-batch's expert communication with the compute of another (megatron-core's
    combined 1F1B schedule). Needs `ep` >= 2, `vpp` >= 2 where `pp` >= 2, the dispatcher `alltoall`
    or `flex`, and neither full recomputation nor that of `moe`."""
    distributed_optimizer: bool = True
    """Shard optimizer states over data-parallel ranks."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where ranks run: `auto` takes CUDA where this machine has it; the run record says which."""
    memory_check: Literal["refuse", "warn"] = "refuse"
    """Before the start, where weights, gradients and optimizer states alone exceed the memory of
    the GPU or machine: refuse the run, or only warn. What is modelled beyond these only warns."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Seconds without progress (a micro-batch, an evaluation) after which a rank reports the
    collective it waits in and exits."""
    storage_timeout_s: float = Field(default=STORAGE_TIMEOUT_S, gt=0)
    """The same while a rank waits for storage: a checkpoint is written, verified or read."""

    @model_validator(mode="before")
    @classmethod
    def _fill_derived(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = {**values}
            if values.get("sp") is None:
                values["sp"] = _more_than_one(values.get("tp"))
            if values.get("etp") is None:
                values["etp"] = 1
        return values

    @model_validator(mode="after")
    def _check_own_rules(self) -> Self:
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"vpp={self.vpp} needs pipeline stages: set pp >= 2 or vpp = 1")
        if self.context_exchange and self.cp == 1:
            raise ValueError(
                f'context_exchange="{self.context_exchange}" needs cp >= 2: remove it, or raise cp'
            )
        if self.sp and self.tp == 1:
            raise ValueError("sp=true needs tp >= 2: sequence parallelism shards over tp ranks")
        if self.ends_count_as_layers and self.pp == 1:
            raise ValueError("ends_count_as_layers=true needs pp >= 2: one stage holds all layers")
        for key in ("timeout_s", "storage_timeout_s"):
            if (seconds := getattr(self, key)) > MAX_TIMEOUT_S:
                raise ValueError(f"{key}={seconds:g} is above a year, {MAX_TIMEOUT_S:g} s")
        self._check_stage_layers()
        self._check_overlap()
        if self.overlap_experts:
            self._check_overlap_experts()
        return self

    def _check_stage_layers(self) -> None:
        if self.stage_layers is None:
            return
        chunks = self.pp * self.vpp
        if len(self.stage_layers) != chunks:
            raise ValueError(
                f"stage_layers has {len(self.stage_layers)} numbers, but there are pp*vpp ="
                f" {self.pp}*{self.vpp} = {chunks} chunks: give one number for each"
            )
        if self.ends_count_as_layers:
            raise ValueError("stage_layers says it all: remove ends_count_as_layers")

    def _check_overlap(self) -> None:
        if self.overlap_param_gather and not (
            self.overlap_grad_reduce and self.distributed_optimizer
        ):
            raise ValueError(
                "overlap_param_gather=true needs overlap_grad_reduce=true and"
                " distributed_optimizer=true"
            )

    def _check_overlap_experts(self) -> None:
        """Check what the combined schedule needs (`transformer_config.py` of megatron-core)."""
        if self.ep == 1:
            raise ValueError(
                "overlap_experts=true with ep=1: experts of one rank have no communication to"
                " overlap: set ep >= 2 or overlap_experts=false"
            )
        if self.pp > 1 and self.vpp == 1:
            raise ValueError(
                f"overlap_experts=true with pp={self.pp} and vpp=1: only the interleaved pipeline"
                " pairs micro-batches so: set vpp >= 2 or pp=1"
            )
        if self.dispatcher == "allgather":
            raise ValueError(
                'overlap_experts=true with dispatcher="allgather": its parts cannot wait apart: set'
                ' dispatcher="alltoall" or "flex"'
            )
        whole = 'recompute="full"' if self.recompute == "full" else None
        if self.recompute == "selective" and "moe" in self.recompute_modules:
            whole = 'recompute_modules with "moe"'
        if whole:
            raise ValueError(
                f"overlap_experts=true with {whole}: expert layers run in parts, which are not"
                ' recomputed as a whole: set recompute="selective" with other modules'
            )

    @property
    def expert_tp(self) -> int:
        """Tensor-parallel ranks inside an expert, resolved."""
        return self.etp or 1

    @property
    def exchange_library(self) -> Literal["allgather", "alltoall", "deepep", "hybridep"]:
        """What exchanges tokens: the dispatcher, of `flex` its backend."""
        return self.flex_backend if self.dispatcher == "flex" else self.dispatcher

    def chunk_layers(self, num_layers: int) -> tuple[tuple[range, ...], ...]:
        """Return the layers of each chunk of each stage, indexed [stage][chunk].

        Chunk `c` of stage `s` is number `c * pp + s` in the model's order, as in megatron-core's
        interleaved schedule (arXiv:2104.04473, section 2.2).

        Raises:
            ValueError: The layers do not divide so; `layout_faults` explains it to users.
        """
        bounds = self._chunk_bounds(num_layers)
        return tuple(
            tuple(
                range(bounds[c * self.pp + s], bounds[c * self.pp + s + 1]) for c in range(self.vpp)
            )
            for s in range(self.pp)
        )

    def _chunk_bounds(self, num_layers: int) -> list[int]:
        """Return the first layer of each chunk in the model's order, then the number of layers."""
        if self.stage_layers is not None:
            if sum(self.stage_layers) != num_layers:
                raise ValueError(f"{num_layers} layers as {self.stage_layers}")
            return list(accumulate(self.stage_layers, initial=0))
        chunks, ends = self.pp * self.vpp, 2 * self.ends_count_as_layers
        per_chunk, rest = divmod(num_layers + ends, chunks)
        if rest:
            raise ValueError(f"{num_layers} layers (+{ends}) over {chunks} chunks")
        offset = 1 if self.ends_count_as_layers else 0
        return [max(0, min(i * per_chunk - offset, num_layers)) for i in range(chunks + 1)]


def _more_than_one(value: Any) -> bool:
    """Whether a value, not yet checked, is a number of ranks above one."""
    try:
        return int(value) > 1
    except (OverflowError, TypeError, ValueError):
        return False
