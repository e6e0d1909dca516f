"""The jobs that a published row may have been: one for each choice of what it does not say."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

from pydantic import ValidationError

from parallel.errors import ParallelError
from parallel.hardware.card import find_card
from parallel.hardware.links import FABRICS
from parallel.layout.layout import Layout, RecomputeModule
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.layout.validation import checked_placement
from parallel.planner.execution import ALL_PARTS, Execution, GraphPart
from parallel.planner.validation.frameworks import settled
from parallel.planner.validation.rows import PublishedRow
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision

Resolver = Callable[[PublishedRow], ModelShape]
"""Finds a row's model; raises ParallelError where there is none."""
Fits = Callable[["Job"], bool]
"""Whether a job fits in its card's memory, as the memory model says."""

DISPATCHERS: dict[str, dict[str, str]] = {
    "allgather": {"dispatcher": "allgather"},
    "alltoall": {"dispatcher": "alltoall"},
    "deepep": {"dispatcher": "flex", "flex_backend": "deepep"},
    "hybridep": {"dispatcher": "flex", "flex_backend": "hybridep"},
    # DeepEP's interface over other transports, for clouds without its own.
    "deepep-uccl": {"dispatcher": "flex", "flex_backend": "deepep"},
    "deepep-nvshmem": {"dispatcher": "flex", "flex_backend": "deepep"},
}
UNMODELLED = {"sharding": ("fsdp",), "task": ("lora",)}
"""What changes a step's work or communication and is not in the planner."""
_CHEAP_TO_REPEAT = ("layernorm", "moe_act", "mla_up_proj", "mlp")
"""Parts that recipes of sparse models recompute first."""
_NUMBERS = ("tp", "pp", "vpp", "cp", "ep", "etp", "mbs")
RECIPES = {
    "bf16": "none", "fp8": "current", "fp8-delayed": "delayed", "fp8-current": "current",
    "fp8-blockwise": "blockwise", "mxfp8": "mxfp8",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One reading of a row."""

    work: Workload
    gpu: str
    """Name of its card."""
    fabric: str | None
    """Network between nodes, a key of `FABRICS`; None where the row does not say."""
    row: PublishedRow
    """What it is a reading of."""
    assumed: tuple[str, ...]
    """What the row does not say, and was assumed: `column=value`."""


class UnusableRowError(ParallelError):
    """A row that cannot be predicted, and why."""


def jobs_of(row: PublishedRow, shape: ModelShape, fits: Fits) -> list[Job]:
    """Return the jobs that a row may have been: of those that are legal, those that fit.

    What ran has fitted, so readings that do not are left out, unless none does. Recomputation that
    is not stated is the least that fits.

    Raises:
        UnusableRowError: It does not say enough, or its layout is not legal.
        ParallelError: A cell is wrong.
    """
    if shape.mtp_layers != (wanted := row.whole("mtp_layers") or 0):
        raise UnusableRowError(f"mtp_layers={wanted} is not the shape's {shape.mtp_layers}")
    for column, names in UNMODELLED.items():
        if (text := row.text(column)) in names:
            raise UnusableRowError(f"{column} {text!r} is not modelled")
    gpu = row.text("gpu") or ""
    if find_card(gpu) is None:
        raise UnusableRowError(f"gpu {gpu!r}: no such card")
    sizes = {name: _needed(row, name) for name in ("gpus", "seq_len", "gbs")}
    stated = row.text("recompute")
    recomputations = (
        [(stated, False)] if stated else [(name, True) for name in _recomputations(shape)]
    )
    fitting, others, fault = list[Job](), list[Job](), None
    for choice in _choices(row, shape):
        tried = list[Job]()
        for recomputation in recomputations:
            try:
                job = _job(row, sizes, choice | {"recompute": recomputation}, shape)
            except (ParallelError, ValidationError) as error:
                fault = error
                continue
            tried.append(job)
            if fits(job):
                fitting.append(job)
                break
        else:
            others += tried[:1]
    if not fitting and not others:
        raise UnusableRowError(f"no legal layout: {_first_line(fault)}")
    return fitting or others


def _recomputations(shape: ModelShape) -> list[str]:
    """Return what a row that does not say may have recomputed, cheapest first."""
    if not any(shape.sparse_layers):
        return ["none", "core_attn"]
    absent = {
        "mla_up_proj": not shape.kv_lora_rank,
        "mlp": all(shape.sparse_layers),
    }
    parts = [name for name in _CHEAP_TO_REPEAT if not absent.get(name, False)]
    return ["none", ",".join(parts[:2]), ",".join(parts), "full"]


def _choices(row: PublishedRow, shape: ModelShape) -> Iterator[dict[str, tuple[Any, bool]]]:
    """Yield every combination of what is known and of the choices for what is not.

    Each value comes with whether it was assumed.
    """
    sparse = any(shape.sparse_layers)
    tp, pp = _needed(row, "tp"), _needed(row, "pp")
    ep = _needed(row, "ep") if sparse else 1
    options: dict[str, list[Any]] = {
        "tp": [tp],
        "pp": [pp],
        "ep": [ep],
        "vpp": [1] if pp == 1 else [1, _usual_chunks(shape, pp)],
        "cp": [1],
        # Without folding, experts use attention's tensor-parallel ranks.
        "etp": [1, tp] if sparse and tp > 1 else [1],
        "mbs": [1, 2, 4],
        "precision": ["bf16"],
        "dispatcher": ["alltoall", "deepep"] if ep > 1 else ["alltoall"],
        "ep_overlap": ["off", "on"] if ep > 1 else ["off"],
        "tp_overlap": ["on", "off"] if tp > 1 and not sparse else ["off"],
        "cuda_graphs": ["none"],
        "routing": ["forced"],
    }
    known: dict[str, Any] = {name: row.whole(name) for name in _NUMBERS}
    known |= {name: row.text(name) for name in options if name not in _NUMBERS}
    known = {name: value for name, value in known.items() if value is not None}
    options |= {
        name: [value]
        for name, value in settled(row.text("framework") or "", tp).items()
        if len(options[name]) > 1
    }
    axes = [
        [(known[name], False)]
        if name in known
        else [(value, True) for value in dict.fromkeys(values)]
        for name, values in options.items()
    ]
    for values in product(*axes):
        yield dict(zip(options, values, strict=True))


def _usual_chunks(shape: ModelShape, stages: int) -> int:
    """Return the chunks a stage where one layer or two make a chunk."""
    # Depths that do not divide are dealt with embedding and loss as layers, as `_depth` does.
    ends = 2 * (shape.num_layers % stages != 0 and (shape.num_layers + 2) % stages == 0)
    layers = (shape.num_layers + ends) // stages
    return next((layers // size for size in (2, 1, 3) if layers % size == 0), 1)


def _job(
    row: PublishedRow,
    sizes: dict[str, int],
    choice: dict[str, tuple[Any, bool]],
    shape: ModelShape,
) -> Job:
    values = {name: value for name, (value, _) in choice.items()}
    batch = BatchSize(
        seq_len=sizes["seq_len"],
        micro_batch_size=values["mbs"],
        global_batch_size=sizes["gbs"],
    )
    layout = _layout(values, shape)
    work = Workload(
        shape=shape,
        placement=checked_placement(layout, shape, batch, sizes["gpus"]),
        batch=batch,
        precision=_precision(values["precision"]),
        execution=Execution(
            overlap_tp=_switch(values, "tp_overlap"),
            cuda_graphs=_graph_parts(values["cuda_graphs"]),
            routing={"unstated": "forced"}.get(values["routing"], values["routing"]),
        ),
    )
    assumed = tuple(f"{name}={value}" for name, (value, is_assumed) in choice.items() if is_assumed)
    fabric = (row.text("fabric") or "").split(" ")[0].lower()
    return Job(
        work=work,
        gpu=row.text("gpu") or "",
        fabric=fabric if fabric in FABRICS else None,
        row=row,
        assumed=assumed,
    )


def _layout(values: dict[str, Any], shape: ModelShape) -> Layout:
    sizes = {name: values[name] for name in ("tp", "pp", "vpp", "cp", "ep", "etp")}
    if values["dispatcher"] not in DISPATCHERS:
        raise UnusableRowError(f"dispatcher {values['dispatcher']!r} is not modelled")
    recompute = values["recompute"]
    kind = recompute if recompute in ("none", "full") else "selective"
    # Without a list of parts, `selective` means Megatron-LM's default.
    modules = ["core_attn"] if recompute == kind else recompute.split(",")
    if unknown := set(modules) - set(get_args(RecomputeModule)):
        raise UnusableRowError(f"recompute {min(unknown)!r} is not modelled")
    return Layout.model_validate(
        sizes
        | DISPATCHERS[values["dispatcher"]]
        | _depth(shape, sizes["pp"] * sizes["vpp"], sizes["pp"])
        | {
            "recompute": kind,
            "recompute_modules": modules,
            "overlap_experts": _switch(values, "ep_overlap"),
            "overlap_grad_reduce": True,
            "overlap_param_gather": True,
        }
    )


def _depth(shape: ModelShape, chunks: int, stages: int) -> dict[str, Any]:
    """Deal layers as a row must have: evenly, with the ends as layers, or as even as can be."""
    layers = shape.num_layers
    if stages == 1 or layers % chunks == 0:
        return {}
    if (layers + 2) % chunks == 0:
        return {"ends_count_as_layers": True}
    each, rest = divmod(layers, chunks)
    return {"stage_layers": [each + (chunk < rest) for chunk in range(chunks)]}


def _precision(text: str) -> Precision:
    if text not in RECIPES:
        raise UnusableRowError(f"precision {text!r} is not modelled")
    return Precision.model_validate({"kernels": "te", "dtype": "bf16", "fp8": RECIPES[text]})


def _graph_parts(text: str) -> tuple[GraphPart, ...]:
    if text in ("layer", "full"):
        return ALL_PARTS
    return tuple(part for part in ALL_PARTS if part in text.split(","))


def _switch(values: dict[str, Any], column: str) -> bool:
    if values[column] not in ("on", "off"):
        raise UnusableRowError(f"{column} = {values[column]!r}: not on or off")
    return bool(values[column] == "on")


def _needed(row: PublishedRow, column: str) -> int:
    value = row.whole(column)
    if value is None:
        raise UnusableRowError(f"{column} is not stated")
    return value


def _first_line(fault: Exception | None) -> str:
    if isinstance(fault, ValidationError):
        return str(fault.errors()[0]["msg"])
    return str(fault)
