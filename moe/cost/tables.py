"""Tables to print: the ledger of a model, several models side by side, the shipped models."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from moe.config.presets.catalog import Card
from moe.cost.ledger import BF16_BYTES, TRAINING_STATE_BYTES, Ledger

_COUNT_UNITS = ("", " K", " M", " B", " T")
_FLOP_UNITS = ("", " k", " M", " G", " T")
_BYTE_UNITS = (" B", " kB", " MB", " GB", " TB", " PB")


def component_table(name: str, ledger: Ledger) -> Table:
    """Return a table with one row per component, and the totals."""
    table = Table(title=f"{name}, sequences of {ledger.seq_len} tokens", title_justify="left")
    table.add_column("component", overflow="fold")
    for heading in ("parameters", "share", "active", "share", "FLOPs a token", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    totals = (
        ledger.total_parameters,
        ledger.active_parameters,
        ledger.training_flops_per_token,
    )
    for component in ledger.components:
        values = (
            component.parameters,
            component.active_parameters,
            component.training_flops_per_token,
        )
        table.add_row(component.name, *_cells(values, totals))
    table.add_section()
    table.add_row("whole model", *_cells(totals, totals))
    return table


def summary_line(ledger: Ledger) -> str:
    """Return the totals as one line, with the bytes that they need."""
    total, mtp = ledger.total_parameters, ledger.mtp_parameters
    for_mtp = f" ({count(mtp)} of them for multi-token prediction)" if mtp else ""
    return (
        f"{count(total)} parameters{for_mtp}, {count(ledger.active_parameters)} active"
        f" ({percent(ledger.active_parameters, total)});"
        f" {flops(ledger.training_flops_per_token)}FLOP a training token."
        f" BF16 weights {size(BF16_BYTES * total)}, training state"
        f" {size(TRAINING_STATE_BYTES * total)} ({TRAINING_STATE_BYTES} bytes a parameter),"
        f" KV cache {size(BF16_BYTES * ledger.kv_cache_elements_per_token)} a token."
    )


def comparison_table(ledgers: Mapping[str, Ledger]) -> Table:
    """Return a table with one row per model; a narrow terminal folds names and cuts none."""
    seq_len = next(iter(ledgers.values())).seq_len
    title = f"Parameters; FLOPs and KV cache a token, in sequences of {seq_len}; weights in BF16"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold", min_width=12)
    for heading in ("total", "active", "share", "FLOPs", "weights", "KV cache"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, ledger in ledgers.items():
        table.add_row(
            name,
            count(ledger.total_parameters),
            count(ledger.active_parameters),
            percent(ledger.active_parameters, ledger.total_parameters),
            flops(ledger.training_flops_per_token),
            size(BF16_BYTES * ledger.total_parameters),
            size(BF16_BYTES * ledger.kv_cache_elements_per_token),
        )
    return table


def preset_table(cards: Mapping[str, Card]) -> Table:
    """Return a table with one row per shipped model and the figures its card prints."""
    table = Table(title="Shipped models (figures as their cards print them)", title_justify="left")
    for heading in ("preset", "total", "active", "source"):
        table.add_column(heading, overflow="fold")
    for name, card in cards.items():
        total, active = card.total_parameters or "", card.active_parameters or ""
        table.add_row(name, total, active, card.sources[0].removeprefix("https://"))
    return table


def count(value: int) -> str:
    """Return a count with four significant digits and K, M, B or T, such as `30.53 B`."""
    return _scaled(value, _COUNT_UNITS, digits=4)


def flops(value: int) -> str:
    """Return FLOPs with four significant digits and k, M, G or T."""
    return _scaled(value, _FLOP_UNITS, digits=4)


def size(num_bytes: int) -> str:
    """Return bytes with three significant digits and a decimal unit (1 GB is 10^9 bytes)."""
    return _scaled(num_bytes, _BYTE_UNITS, digits=3)


def percent(value: int, total: int) -> str:
    """Return a fraction of a total, such as `12.5%`."""
    return f"{100 * value / total:.1f}%"


def _cells(values: tuple[int, int, int], totals: tuple[int, int, int]) -> list[str]:
    shown = (count(values[0]), count(values[1]), flops(values[2]))
    shares = (percent(value, total) for value, total in zip(values, totals, strict=True))
    return [cell for pair in zip(shown, shares, strict=True) for cell in pair]


def _scaled(value: int, units: tuple[str, ...], digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    step = min(int(exponent) // 3, len(units) - 1)
    shown = float(mantissa) * 10.0 ** (int(exponent) - 3 * step)
    decimals = max(0, digits - 1 - (int(exponent) - 3 * step)) if step else 0
    return f"{shown:.{decimals}f}{units[step]}"
