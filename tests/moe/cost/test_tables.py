"""Tables of costs on a terminal of eighty columns."""

from rich.console import Console

from moe.config.experiment import load_model
from moe.cost.ledger import ledger
from moe.cost.tables import comparison_table


def test_nothing_is_cut_at_eighty_columns() -> None:
    names = ("deepseek-v3", "deepseek-v2-lite", "qwen3-30b-a3b")
    console = Console(width=80)
    with console.capture() as capture:
        ledgers = {name: ledger(load_model(name), 4096) for name in names}
        ledgers["experiments/a-model-with-a-long-name.toml"] = ledgers["deepseek-v3"]
        console.print(comparison_table(ledgers))
    words = capture.get()
    assert "…" not in words, "a longer name is folded"
    assert all(name in words for name in (*names, "682.6 B", "37.55 B", "260.0 G", "1.37 TB"))
