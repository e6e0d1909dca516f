"""Whether a run fits in memory: the lines that refuse it, or warn of it."""

from moe.cost.memory_need import MemoryNeed
from parallel.hardware.card import find_card
from parallel.measurement.units import BILLION


def refusal(need: MemoryNeed, place: str, total_bytes: int) -> str | None:
    """Return why a run cannot fit, if what is sure alone exceeds what there is.

    Args:
        need: Of the ranks that share the memory.
        place: What has it, such as a GPU's name.
        total_bytes: What it has, used or not.
    """
    if need.sure_bytes <= total_bytes:
        return None
    terms = ", ".join(f"{name} {_gb(size)}" for name, size in _largest_first(need.sure))
    return (
        f"{place} has {_gb(total_bytes)} of memory, and this run takes {_gb(need.sure_bytes)} for"
        f" its state alone ({terms}): raise parallel.tp, pp or ep with ranks on more GPUs or"
        f" machines ({_search(place)}), or take a smaller model"
    )


def warning(need: MemoryNeed, place: str, total_bytes: int, free_bytes: int) -> str | None:
    """Return that a run may not fit, by the memory model.

    Args:
        need: Of the ranks that share the memory.
        place: What has it.
        total_bytes: What it has, used or not.
        free_bytes: What no other program uses now.
    """
    if need.modelled_bytes is None or need.modelled_bytes <= free_bytes:
        return None
    held = ""
    if need.modelled_bytes <= total_bytes:
        held = f", {_gb(free_bytes)} of it free for this run"
    return (
        f"{place} has {_gb(total_bytes)} of memory{held}, and this run needs about"
        f" {_gb(need.modelled_bytes)} at its peak (modelled): it may run out of memory; to need"
        " less, lower train.micro_batch_size, set parallel.recompute, or raise parallel.tp, pp or"
        f" ep with more ranks ({_search(place)})"
    )


def _largest_first(terms: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(terms.items(), key=lambda term: -term[1])


def _search(place: str) -> str:
    card = find_card(place)
    return f"`moe plan EXPERIMENT --gpus N --gpu {card.name if card else 'CARD'}` finds layouts"


def _gb(size: int) -> str:
    return f"{size / BILLION:,.1f} GB"
