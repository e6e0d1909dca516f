"""A layout as one word of a command line: `tp=2,pp=4,vpp=2,ep=8,mbs=1,recompute=layernorm`."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from benchmarks.errors import BenchmarkError
from moe.config.experiment import validated
from parallel.layout.layout import Layout
from parallel.planner.search.choices import DISPATCHERS
from parallel.planner.workload import Workload

SIZES = ("tp", "cp", "pp", "vpp", "ep", "etp")
_SWITCHES = (
    "sp", "overlap_experts", "ends_count_as_layers", "overlap_grad_reduce",
    "overlap_param_gather", "distributed_optimizer",
)  # fmt: skip
KEYS = (
    *SIZES, "dp", "mbs", "recompute", "dispatcher", "stage_layers", "context_exchange",
    *_SWITCHES,
)  # fmt: skip

MOST_CHUNKS = 10_000
"""That one word of `stage_layers` may stand for."""


@dataclass(frozen=True)
class LayoutRequest:
    """What a text says of a layout; what it leaves out is open."""

    text: str
    fields: dict[str, Any]
    """Of `Layout`."""
    micro_batch_size: int | None
    dp: int | None

    def layout(self, base: Layout) -> Layout:
        """Return the layout; sizes that are not named are 1, the rest is as in `base`.

        Raises:
            InputError: Values contradict each other.
        """
        kept = base.model_dump(exclude={"sp", "stage_layers", "context_exchange", *SIZES})
        values = kept | {"overlap_experts": False, "ends_count_as_layers": False} | self.fields
        return validated(Layout, values, f"layout {self.text}", by_hand=False)


def parse_layout(text: str) -> LayoutRequest:
    """Read `key=value` pairs, separated by commas; lists within a value by `+`.

    Raises:
        BenchmarkError: A pair is no such thing; names it and what may stand there.
    """
    values: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or key not in KEYS:
            raise BenchmarkError(f"layout {text!r}: {pair!r} is none of {', '.join(KEYS)} = VALUE")
        if key in values:
            raise BenchmarkError(f"layout {text!r}: {key} is given twice: leave one")
        values[key] = value
    if not values:
        raise BenchmarkError("layout: say sizes, for example tp=4,pp=2,ep=8")
    fields: dict[str, Any] = {}
    for key, value in values.items():
        if key in SIZES:
            fields[key] = _whole(text, key, value)
        elif key in _SWITCHES:
            fields[key] = _switch(text, key, value)
        elif key == "recompute":
            fields |= _recompute(value)
        elif key == "dispatcher":
            if value not in DISPATCHERS:
                raise BenchmarkError(
                    f"layout {text!r}: dispatcher={value}: choose {', '.join(DISPATCHERS)}"
                )
            fields |= DISPATCHERS[value]
        elif key == "context_exchange":
            fields[key] = value
        elif key == "stage_layers":
            fields[key] = tuple(_repeated(text, key, value))
    return LayoutRequest(
        text=text,
        fields=fields,
        micro_batch_size=_whole(text, "mbs", values["mbs"]) if "mbs" in values else None,
        dp=_whole(text, "dp", values["dp"]) if "dp" in values else None,
    )


def layout_text(work: Workload) -> str:
    """Return the text that `parse_layout` reads back; sizes of 1 are left out but for tp and pp."""
    layout = work.layout
    words = [
        f"{name}={size}"
        for name in SIZES
        if (size := getattr(layout, name) or 1) > 1 or name in ("tp", "pp")
    ]
    words.append(f"mbs={work.batch.micro_batch_size}")
    if layout.recompute != "none":
        modules = "+".join(layout.recompute_modules)
        words.append(f"recompute={'full' if layout.recompute == 'full' else modules}")
    if layout.ep * layout.expert_tp > 1:
        words.append(f"dispatcher={layout.exchange_library}")
    words += [
        f"{name}=true"
        for name in ("overlap_experts", "ends_count_as_layers")
        if getattr(layout, name)
    ]
    if layout.stage_layers is not None:
        runs = [(layers, len(list(run))) for layers, run in groupby(layout.stage_layers)]
        words.append(
            "stage_layers=" + "+".join(f"{n}x{of}" if n > 1 else f"{of}" for of, n in runs)
        )
    return ",".join(words)


def _recompute(value: str) -> dict[str, Any]:
    if value in ("none", "full"):
        return {"recompute": value}
    return {"recompute": "selective", "recompute_modules": tuple(value.split("+"))}


def _repeated(text: str, key: str, value: str) -> list[int]:
    """Read `4x9+8`: four times 9, then 8."""
    numbers: list[int] = []
    for word in value.split("+"):
        times, x, number = word.rpartition("x")
        count = _whole(text, key, times) if x else 1
        if count > MOST_CHUNKS:
            raise BenchmarkError(f"layout {text!r}: {key}={word}: at most {MOST_CHUNKS} at once")
        numbers += [_whole(text, key, number)] * count
    return numbers


def _whole(text: str, key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value[:12]) > 0 and len(value) < 10):
        raise BenchmarkError(f"layout {text!r}: {key}={value}: give a whole number above 0")
    return int(value)


def _switch(text: str, key: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise BenchmarkError(f"layout {text!r}: {key}={value}: give true or false")
    return value == "true"
