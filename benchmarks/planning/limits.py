"""What holds a layout back, in words, largest first."""

from collections.abc import Mapping

from parallel.hardware.card import Card
from parallel.layout.validation import num_micro_batches
from parallel.planner.device_memory import DeviceMemory
from parallel.planner.workload import Workload

LEAST_SHARE = 0.03
"""Of a step; what takes less does not limit."""
NEARLY_FULL = 0.9
"""Share of a card's memory above which its largest term limits."""
TERM_NAMES = {
    "attention": "core attention",
    "memory_bound": "memory-bound kernels",
    "fp8_cast": "FP8 casts",
    "tensor_parallel": "tensor-parallel collectives",
    "context_parallel": "context-parallel transfers",
    "expert_exchange": "expert exchange",
    "recomputation": "recomputation",
    "host": "host launches",
    "optimizer": "optimizer",
}


def limits(  # noqa: PLR0913 - a job, and what is known of its step
    work: Workload,
    card: Card,
    memory: DeviceMemory,
    terms: Mapping[str, float],
    flops: float,
    even: Mapping[str, float] | None = None,
) -> tuple[str, ...]:
    """Return what costs a step at least `LEAST_SHARE`, with its share, and a full memory.

    What an even load of experts would save is a cost of its own; the others are those that it would
    leave.

    Args:
        work: The job.
        card: The card.
        memory: What it needs.
        terms: Seconds of the busiest stage by term.
        flops: Of one step on one card, by the ledger's convention.
        even: `terms` had all experts the same load; None: they have.
    """
    step = sum(terms.values())
    saved = 0.0 if even is None else step - sum(even.values())
    terms = terms if even is None else even
    costs = {name: terms.get(term, 0.0) for term, name in TERM_NAMES.items()}
    costs[f"waiting ({_what_for(work, terms)})"] = terms.get("waiting", 0.0)
    rate = card.rates.fp8 if work.precision.is_native_fp8 else card.rates.bf16
    if work.precision.dtype == "fp32":
        rate = card.rates.fp32
    products = terms.get("matmul", 0.0) + terms.get("expert_matmul", 0.0)
    costs["uneven load of experts"] = saved
    costs["matrix products below the card's rate"] = products - flops / (rate or card.rates.bf16)
    ordered = sorted(costs.items(), key=lambda item: -item[1])
    found = [f"{name} {cost / step:.0%}" for name, cost in ordered if cost >= LEAST_SHARE * step]
    share = memory.total_bytes / card.memory_bytes
    if share >= NEARLY_FULL:
        name, size = largest_memory_term(memory)
        found.append(f"memory {share:.0%} full ({name} {size / memory.total_bytes:.0%} of it)")
    return tuple(found)


def memory_terms(memory: DeviceMemory) -> dict[str, int]:
    """Return the bytes by what uses them; they add up to the total."""
    return {
        name.removesuffix("_bytes").replace("_", " "): value
        for name, value in memory.as_json().items()
    }


def gibibytes(num_bytes: float) -> str:
    """Return bytes in the unit that cards are sold in: `75.9 GiB`; small ones as `18.0 MiB`."""
    if 0 < num_bytes < 2**30 / 10:
        return f"{num_bytes / 2**20:,.1f} MiB"
    return f"{num_bytes / 2**30:,.1f} GiB"


def largest_memory_term(memory: DeviceMemory) -> tuple[str, int]:
    """Return what uses most, and its bytes."""
    return max(memory_terms(memory).items(), key=lambda item: item[1])


def _what_for(work: Workload, terms: Mapping[str, float]) -> str:
    """Return whether a stage waits for others or for gradients and weights."""
    layout = work.layout
    if layout.pp == 1:
        return "gradients and weights of replicas"
    busy = sum(seconds for term, seconds in terms.items() if term not in ("waiting", "optimizer"))
    count = num_micro_batches(work.placement, work.batch)
    bubble = busy * (layout.pp - 1) / (layout.vpp * count)
    return "pipeline bubble" if bubble >= terms["waiting"] / 2 else "stages, gradients and weights"
