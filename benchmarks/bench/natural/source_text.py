"""Where a routing comes from, in words."""

from collections.abc import Mapping
from typing import Any


def routing_text(row: Mapping[str, Any]) -> str:
    """Return a row's routing; natural routing with where it comes from.

    Results from before sources were recorded have none: their natural routing was of random
    weights.
    """
    name, source = str(row["routing"]), row.get("routing_source")
    if name != "natural":
        return name
    if source is None:
        return "untrained (recorded as natural)"
    if source["kind"] == "replay":
        layers = source["recorded_layers"]
        layer = f", layer {layers['0']}" if list(layers) == ["0"] else ""
        return f"natural ({source['file']}{layer})"
    steady = "" if source["steady"] else ", not steady"
    return f"natural (warmed up, {source['steps']} steps{steady})"
