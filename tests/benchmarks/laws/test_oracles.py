"""Published numbers that each law must give."""

import numpy as np
import pytest

from benchmarks.laws.clark_runs import ROUTERS, clark_points
from benchmarks.laws.conventions import coefficient_in_base, krajewski_total_parameters
from benchmarks.laws.families import clark, krajewski, ling, ludziejewski
from benchmarks.laws.fitting.fit import fit_law
from benchmarks.laws.fitting.penalty import PENALTIES
from benchmarks.laws.law import Law
from benchmarks.laws.law_columns import law_points
from benchmarks.laws.registry import LAWS

TABLE_4 = {
    1: (30.364, -0.1817, 53.984, -0.1965),
    2: (27.798, -0.1780, 66.840, -0.2065),
    4: (24.846, -0.1731, 87.702, -0.2192),
    8: (21.833, -0.1676, 119.913, -0.2338),
    16: (19.016, -0.1617, 167.507, -0.2494),
    32: (16.542, -0.1557, 234.673, -0.2652),
}
"""m, mu, n, nu by experts: Ludziejewski et al. 2025, table 4."""
TABLE_2 = [(100e6, 4.37e9, 8, 3.133), (7e9, 137.6e9, 32, 2.076), (1e12, 7.94e12, 64, 1.367)]
"""Label's size, tokens, granularity, loss: rows of Krajewski et al. 2024, table 2."""


def at(law: Law, **columns: float) -> float:
    values = law.published[0].values
    return float(law.predict({n: np.array([v]) for n, v in columns.items()}, values)[0])


@pytest.mark.parametrize("experts", TABLE_4)
def test_ludziejewski_table_3_gives_table_4(experts: int) -> None:
    law = ludziejewski.LUDZIEJEWSKI
    found = ludziejewski.per_experts(experts, law.published[0].values)
    assert list(found.values()) == pytest.approx(TABLE_4[experts], rel=2.7e-3)


def test_ludziejewski_law_is_its_per_expert_form() -> None:
    law = ludziejewski.LUDZIEJEWSKI
    values = law.published[0].values
    part = ludziejewski.per_experts(8, values)
    by_hand = part["m"] * 1e9 ** part["mu"] + part["n"] * 2e10 ** part["nu"] + values["c"]
    assert at(law, active_parameters=1e9, tokens=2e10, experts=8) == pytest.approx(by_hand)


def test_ludziejewski_more_experts_help_and_with_flipped_signs_harm() -> None:
    law = ludziejewski.LUDZIEJEWSKI
    values = dict(law.published[0].values)
    flipped = values | {n: -values[n] for n in ("delta", "omega", "gamma", "zeta")}
    columns = {
        "active_parameters": np.full(2, 1e9),
        "tokens": np.full(2, 2e10),
        "experts": np.array([1.0, 32.0]),
    }
    dense, sparse = law.predict(columns, values)
    assert sparse < dense
    dense, sparse = law.predict(columns, flipped)
    assert sparse > dense


@pytest.mark.parametrize(("label", "tokens", "granularity", "loss"), TABLE_2)
def test_krajewski_table_2_by_total_parameters_only(
    label: float, tokens: float, granularity: float, loss: float
) -> None:
    total = krajewski_total_parameters(label)
    assert total == pytest.approx(43 * label)
    law = krajewski.KRAJEWSKI
    right = at(law, parameters=total, tokens=tokens, granularity=granularity)
    wrong = at(law, parameters=label, tokens=tokens, granularity=granularity)
    assert right == pytest.approx(loss, abs=0.024)
    assert abs(wrong - loss) > 0.25


def test_ling_leverage_and_best_granularity() -> None:
    values = ling.LING.published[0].values
    leverage = at(ling.LING, activation_ratio=0.031, hidden_granularity=12, flops=1e22)
    assert leverage == pytest.approx(7.24, abs=0.01)
    assert at(ling.LING, activation_ratio=1, hidden_granularity=12, flops=1e22) == pytest.approx(
        0.99, abs=0.01
    )
    assert ling.best_granularity(values) == pytest.approx(11.3, abs=0.1)


def test_ling_with_natural_logarithms_is_off_by_a_thousand() -> None:
    """The same numbers taken for coefficients of ln C and ln G."""
    values = dict(ling.LING.published[0].values)
    values["d"] = coefficient_in_base(values["d"], power=1, base=np.e, to=10)
    for name, power in (("gamma", 2), ("beta", 1)):
        values[name] = coefficient_in_base(values[name], power=power, base=np.e, to=2)
    point = {"activation_ratio": 0.031, "hidden_granularity": 12.0, "flops": 1e22}
    columns = {name: np.array([value]) for name, value in point.items()}
    assert ling.LING.predict(columns, values)[0] == pytest.approx(5330, rel=0.01)


@pytest.mark.parametrize(
    ("router", "runs", "rms"),
    [("S-Base", 58, 0.00323), ("RL-R", 59, 0.00323), ("Hash", 56, 0.00298)],
)
def test_clark_runs_refitted(router: str, runs: int, rms: float) -> None:
    """Each router's refit is closer to its runs than the published S-BASE coefficients are."""
    points = clark_points(router)
    law = clark.CLARK
    fit = fit_law(law, law_points(law, points), PENALTIES["squared"])
    published = law.predict(points.columns, law.published[0].values)
    published_rms = np.sqrt(np.mean(np.log10(published / points.columns["loss"]) ** 2))
    ours = np.sqrt(np.mean(fit.residuals**2)) / np.log(10)
    assert len(points) == runs
    assert ours == pytest.approx(rms, abs=1e-5)
    assert ours < published_rms


def test_clark_s_base_published_and_refitted_coefficients() -> None:
    points = clark_points("S-Base")
    law = clark.CLARK
    published = law.predict(points.columns, law.published[0].values)
    rms = np.sqrt(np.mean(np.log10(published / points.columns["loss"]) ** 2))
    assert rms == pytest.approx(0.00369, abs=1e-5)
    fit = fit_law(law, law_points(law, points), PENALTIES["squared"])
    assert fit.values == pytest.approx(
        {"a": -0.0830, "b": -0.1180, "c": 0.0099, "d": 1.1136, "E_start": 2.075, "E_max": 238.7},
        rel=5e-3,
    )


def test_clark_dense_slope() -> None:
    """Five dense runs: ln L falls by 0.0785 for each ln N (paper: 0.078)."""
    points = clark_points(ROUTERS[0])
    dense = points.columns["experts"] == 1
    sizes, losses = (np.log(points.columns[n][dense]) for n in ("active_parameters", "loss"))
    assert dense.sum() == 5
    assert np.polyfit(sizes, losses, 1)[0] == pytest.approx(-0.07851, abs=1e-4)


def test_clark_effective_parameters_have_equal_loss() -> None:
    law = clark.CLARK
    values = law.published[0].values
    size = clark.effective_parameters(1e9, 64, values)
    assert size > 1e9
    assert at(law, active_parameters=size, experts=1) == pytest.approx(
        at(law, active_parameters=1e9, experts=64)
    )


def test_tencent_optimum_of_experts_and_shared_ratio() -> None:
    """The loss is least at G = sqrt(f / e) and S = -n / (2 m), whatever the sizes."""
    values = LAWS["tencent"].published[0].values
    experts, shared = np.linspace(1, 16, 301), np.linspace(0, 0.9, 181)
    sizes = {"parameters": 1e10, "active_parameters": 1e9, "tokens": 1e11}

    def losses(**varied: np.ndarray) -> np.ndarray:
        columns = {n: np.full(next(iter(varied.values())).shape, v) for n, v in sizes.items()}
        return np.asarray(LAWS["tencent"].predict(columns | varied, values))

    best_experts = experts[losses(active_experts=experts, shared_ratio=0.3 + 0 * experts).argmin()]
    best_shared = shared[losses(active_experts=7 + 0 * shared, shared_ratio=shared).argmin()]
    assert best_experts == pytest.approx((values["f"] / values["e"]) ** 0.5, abs=0.06)
    assert best_shared == pytest.approx(-values["n"] / (2 * values["m"]), abs=0.006)


def test_abnar_by_hand() -> None:
    found = at(LAWS["abnar"], parameters=1e9, tokens=2e10, sparsity=0.9)
    by_hand = (
        0.94
        + 16612.5 / 1e9**0.5962
        + 5455.67 / 2e10**0.3954
        + 0.4598 / 0.1**-0.1666
        + 17.26 / (0.1**0.1603 * 1e9**0.1595)
    )
    assert found == pytest.approx(by_hand)
