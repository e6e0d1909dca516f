"""Parallel layouts as pure arithmetic: which products must match, and what to change if not."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Layout(BaseModel):
    """The `[parallel]` section: how one model is laid over ranks.

    Attention layers use `tp * cp * pp * dp` ranks; expert layers fold the same ranks into
    `etp * ep * pp * edp` (arXiv:2504.14960). `dp` and `edp` follow from the number of ranks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tp: int = Field(default=1, ge=1)
    """Tensor-parallel ranks of attention and dense layers."""
    sp: bool | None = None
    """Sequence parallelism: shard activations between tensor-parallel regions. Default: tp > 1."""
    pp: int = Field(default=1, ge=1)
    """Pipeline stages."""
    vpp: int = Field(default=1, ge=1)
    """Virtual pipeline chunks a stage (interleaved schedule)."""
    ends_count_as_layers: bool = False
    """Count input embedding and LM head as one layer each when layers are dealt over stages: the
    first and the last chunk hold one layer fewer. For depths like Llama 3.1 405B's 126."""
    ep: int = Field(default=1, ge=1)
    """Expert-parallel ranks."""
    etp: int | None = Field(default=None, ge=1)
    """Tensor-parallel ranks inside an expert. Default: 1."""
    cp: int = Field(default=1, ge=1)
    """Context-parallel ranks: one sequence is cut into this many parts."""
    dispatcher: Literal["allgather", "alltoall", "flex"] = "alltoall"
    """Token dispatcher of the expert layers."""
    distributed_optimizer: bool = True
    """Shard optimizer states over data-parallel ranks."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where ranks run: `auto` takes CUDA where this machine has it, and the run record says so."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Seconds without progress (a micro-batch, an evaluation, a checkpoint waited for) after which
    a rank names the collective it waits in and ends. Longer than the slowest checkpoint."""

    @model_validator(mode="before")
    @classmethod
    def _fill_derived(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = {**values}
            if values.get("sp") is None:
                values["sp"] = int(values.get("tp", 1)) > 1
            if values.get("etp") is None:
                values["etp"] = 1
        return values

    @model_validator(mode="after")
    def _check_own_rules(self) -> Self:
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"vpp={self.vpp} needs pipeline stages: set pp >= 2 or vpp = 1")
        if self.sp and self.tp == 1:
            raise ValueError("sp=true needs tp >= 2: sequence parallelism shards over tp ranks")
        if self.ends_count_as_layers and self.pp == 1:
            raise ValueError("ends_count_as_layers=true needs pp >= 2: one stage holds all layers")
        return self

    @property
    def expert_tp(self) -> int:
        """Tensor-parallel ranks inside an expert, resolved."""
        return self.etp or 1

    def chunk_layers(self, num_layers: int) -> tuple[tuple[range, ...], ...]:
        """Return, for each stage, for each of its chunks, the range of its layers.

        Chunk `c` of stage `s` is the `(c * pp + s)`-th part of the model, as in megatron-core's
        interleaved schedule (arXiv:2104.04473, section 2.2).

        Raises:
            ValueError: The layers cannot be dealt evenly; `layout_faults` says it to users.
        """
        chunks, ends = self.pp * self.vpp, 2 * self.ends_count_as_layers
        per_chunk, rest = divmod(num_layers + ends, chunks)
        if rest:
            raise ValueError(f"{num_layers} layers (+{ends}) over {chunks} chunks")
        offset = 1 if self.ends_count_as_layers else 0
        bounds = [max(0, min(i * per_chunk - offset, num_layers)) for i in range(chunks + 1)]
        return tuple(
            tuple(
                range(bounds[c * self.pp + s], bounds[c * self.pp + s + 1]) for c in range(self.vpp)
            )
            for s in range(self.pp)
        )
