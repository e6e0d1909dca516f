"""How often intervals of a law's predictions and optima hold the truth, over made points.

    python -m tests.support.interval_coverage --draws 40

Each draw makes the points of a law (tests/support/law_points.py) with new noise of ln L, fits it,
and asks beyond the points: the loss of one model, and the best model at given FLOPs.
"""

import argparse
from collections import Counter

import numpy as np

from benchmarks.laws.compare import fit_law_to
from benchmarks.laws.curves import best_curve, combinations, dial_values
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.fitting.profile_prediction import prediction_interval
from benchmarks.laws.registry import LAWS
from tests.support.law_points import DESIGNS, made_points, true_values

NOISE = 0.004
BEYOND = 10.0
"""The model's size and tokens are so many times the largest of the points."""


def intervals_hold(
    name: str, seed: int, resamples: int = 100, loss: str = "huber"
) -> dict[str, bool]:
    """Return which 95% intervals of one draw hold the truth."""
    law, points = LAWS[name], made_points(name, NOISE, seed)
    truth, space = true_values(law), LAWS[name].space
    assert space is not None
    one = fit_law_to(points, name, loss, resamples=resamples)
    fitted = one.fitted
    at = {column: float(points.columns[column].max()) for column in law.columns}
    at |= {n: BEYOND * at[n] for n in (space.size, "tokens")}
    columns = {column: np.array([value]) for column, value in at.items()}
    flops = np.array([6 * float(space.active(columns)[0]) * at["tokens"]])
    rows = {n: fitted.resamples[:, i, None] for i, n in enumerate(law.coefficients)}
    drawn = law.predict(columns, rows)[:, 0]
    with np.errstate(all="ignore"):
        profile = prediction_interval(one.fit, at)
    exact = float(law.predict(columns, truth)[0])
    dials = combinations(dial_values(fitted))
    best = best_curve(fitted, space, dials, flops)
    true_best = best_curve(FittedLaw(law, dict(truth), "truth"), space, dials, flops)
    low, high = (np.inf if side is None else side for side in profile)
    return {
        "loss, bootstrap": _holds(drawn, exact),
        "loss, profile": (profile[0] is None or low <= exact) and exact <= high,
        "best loss, bootstrap": _holds(best.losses[0, 1:], float(true_best.losses[0, 0])),
        "best size, bootstrap": _holds(best.sizes[0, 1:], float(true_best.sizes[0, 0])),
        "best tokens, bootstrap": _holds(best.tokens[0, 1:], float(true_best.tokens[0, 0])),
    }


def _holds(drawn: np.ndarray, truth: float) -> bool:
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return bool(low <= truth <= high)


def coverage(name: str, draws: int, resamples: int = 100, loss: str = "huber") -> Counter[str]:
    """Return in how many draws each interval holds the truth."""
    found: Counter[str] = Counter()
    for seed in range(draws):
        found.update({k: int(v) for k, v in intervals_hold(name, seed, resamples, loss).items()})
    return found


def main() -> None:
    """Print the coverage of each law's intervals."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--loss", default="huber")
    parser.add_argument("laws", nargs="*", default=["chinchilla", "abnar", "ludziejewski"])
    options = parser.parse_args()
    for name in options.laws:
        found = coverage(name, options.draws, loss=options.loss)
        points = int(np.prod([len(values) for values in DESIGNS[name].values()]))
        shares = ", ".join(f"{what} {held / options.draws:.0%}" for what, held in found.items())
        print(f"{name}, {points} points, {options.draws} draws: {shares}", flush=True)


if __name__ == "__main__":
    main()
