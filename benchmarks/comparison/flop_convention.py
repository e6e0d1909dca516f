"""Whether runs count FLOPs by the same convention; others are refused, never compared silently."""

from collections.abc import Sequence

from pydantic import ValidationError

from benchmarks.errors import BenchmarkError
from moe.config.model import ModelConfig
from moe.cost.ledger import ledger
from moe.runs.run import Run

OWN_CONVENTION = "moescale"
WHOLE_ROWS = "moescale over whole rows, an upper bound"
"""Of runs that hold padding or several documents in a row, and did not count them."""
# Our convention gives an exact integer; rounding of floats stays far below this.
TOLERANCE = 1e-6


def convention(run: Run) -> str:
    """Return the name of the convention behind the run's FLOPs.

    A ledger may name one (`flop_convention`). One that does not is checked: its model, counted
    again by `moe.cost.ledger`, must give the recorded number. What the run trained on is counted
    by documents, or known only as a bound.
    """
    named = run.ledger.get("flop_convention")
    if named is not None:
        return str(named)
    counted = _recount(run)
    if counted is None or abs(counted / run.flops_per_token - 1) <= TOLERANCE:
        return WHOLE_ROWS if run.has_flop_bound else OWN_CONVENTION
    factor = run.flops_per_token / counted
    return f"another ({run.flops_per_token:.4g} FLOP/token recorded, {factor:.3g} x moescale's)"


def _recount(run: Run) -> float | None:
    """Return FLOPs per token by our convention; `None` where the model is not fully stated."""
    try:
        model = ModelConfig.model_validate(run.experiment.get("model", {}))
        return float(
            ledger(model, int(run.experiment["train"]["seq_len"])).training_flops_per_token
        )
    except (ValidationError, KeyError, TypeError, ValueError):
        return None


def refuse_unlike_conventions(runs: Sequence[Run]) -> None:
    """Refuse runs whose FLOPs are counted by different conventions.

    Raises:
        BenchmarkError: Names one run of each convention and the remedy.
    """
    first_of: dict[str, Run] = {}
    for run in runs:
        first_of.setdefault(convention(run), run)
    if len(first_of) > 1:
        named = ", ".join(f"{run.path} by {name}" for name, run in first_of.items())
        raise BenchmarkError(
            f"FLOPs are counted by unlike conventions: {named}: recount the odd ones with"
            " `moe cost`, or report them apart"
        )
