"""`moe data inspect --html`: one offline page with a store's plots and tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.inspection.summary import HISTOGRAM_TITLES, edge_text, summary
from data.plain_text import printable
from data.storage.atomic import write_text
from data.store.manifest import Manifest

COLORS = ("#2a6f97", "#e07a5f", "#81b29a", "#8d6a9f")
LAYOUT = {
    "height": 300,
    "margin": {"l": 60, "r": 20, "t": 10, "b": 60},
    "bargap": 0.08,
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif", "size": 12},
    "legend": {"orientation": "h", "y": 1.15},
}


def write_page(store: Path, manifest: Manifest, out: Path) -> None:
    """Write the page of a store to `out`; it needs no network."""
    from jinja2 import Environment, FileSystemLoader
    from plotly.offline import get_plotlyjs

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    values = summary(manifest)
    page = environment.get_template("inspect.html.j2").render(
        store=printable(store.name), plotly=get_plotlyjs(), plots=plots(values), **values
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)


def plots(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return id, title, and Plotly's data and layout of each plot that has something to show."""
    histograms = values["histograms"]
    found = [_sources(values["sources"], values["splits"])]
    found += [
        _bar(name, title, [edge_text(edge) for edge in histograms[name]], histograms[name].values())
        for name, title in HISTOGRAM_TITLES.items()
        if histograms.get(name)
    ]
    by_prefix = {
        "dropped": ("Documents left out, by reason", values["dropped"]),
        "found": ("Personal data found", _with_prefix(values["counts"], "found.")),
        "language": ("Documents by language", _with_prefix(values["counts"], "language.")),
    }
    found += [
        _bar(name, title, list(counts), counts.values())
        for name, (title, counts) in by_prefix.items()
        if counts
    ]
    return found


def _with_prefix(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    mine = {k.removeprefix(prefix): n for k, n in counts.items() if k.startswith(prefix)}
    return dict(sorted(mine.items(), key=lambda item: -item[1]))


def _bar(name: str, title: str, labels: list[str], counts: Any) -> dict[str, Any]:
    trace = {"type": "bar", "x": labels, "y": list(counts), "marker": {"color": COLORS[0]}}
    axes = {"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "documents"}}}
    if name == "found":
        axes["yaxis"] = {"title": {"text": "findings"}}
    return {"id": name, "title": title, "data": [trace], "layout": LAYOUT | axes}


def _sources(sources: list[dict[str, Any]], splits: Mapping[str, Any]) -> dict[str, Any]:
    names = [source["name"] for source in sources]
    traces = [
        {
            "type": "bar",
            "name": split,
            "x": names,
            "y": [source["splits"][split] for source in sources],
            "marker": {"color": color},
        }
        for split, color in zip(splits, COLORS, strict=False)
    ]
    axes = {"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "tokens"}}}
    layout = LAYOUT | axes | {"barmode": "stack"}
    return {"id": "sources", "title": "Tokens by source", "data": traces, "layout": layout}
