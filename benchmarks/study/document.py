"""The study's result as one JSON document."""

from typing import Any

from benchmarks.study.finding import finding
from benchmarks.study.laws import FORM, law_rows
from benchmarks.study.study import Study
from moe.runs.environment import environment
from moe.runs.source_state import source_state

FORMAT = "moescale study 1"
_KEPT = ("run", "settings", "experts", "top_k", "hidden_size", "num_layers", "parameters",
         "active_parameters", "embedding_parameters", "tokens", "steps", "flops", "asked_held",
         "learning_rate", "batch_tokens", "seed", "loss", "wall_seconds", "tokens_per_s",
         "energy_joules", "energy_kind", "started_at")  # fmt: skip


def study_document(study: Study, hardware: dict[str, Any], command: str) -> dict[str, Any]:
    """Return everything that the study states, with its conditions and all runs."""
    compared = study.compared["comparison"]
    return {
        "format": FORMAT,
        "conditions": {
            "hardware": hardware,
            "command": command,
            "commit": source_state(),
            **environment(),
        },
        "corpus": dict(study.corpus),
        "finding": finding(study),
        "form": FORM,
        "laws": law_rows(study.apart),
        "laws_together": [
            row | {"held_out_rms_log": study.held_out_errors[row["law"]]} for row in compared
        ],
        "minima": [one.as_json() for one in study.minima],
        "predictions": [one.as_json() for one in study.outcomes],
        "leverage": [one.as_json() for one in study.leverage],
        "pairs": [one.as_json() for one in study.pairs],
        "runs": [{name: row.get(name) for name in _KEPT} for row in study.rows],
    }
