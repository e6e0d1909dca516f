"""Calibration on records of `moe bench`: a machine's factors are found, mistakes told."""

from typing import Any

import pytest

from parallel.errors import ParallelError
from parallel.hardware.card import Card, load_card
from parallel.planner.calibration.records.user_points import Calibration, calibrate_card
from parallel.planner.compute_time.gemm import gemm_seconds
from parallel.planner.step.clock import Clock
from parallel.planner.step.step_time import StepTimes
from tests.parallel.planner.step.test_step_time import BF16, job
from tests.support.bench_points import (
    OPERATIONS,
    attention_record,
    bench_records,
    collective_record,
    gemm_record,
    layer_record,
    record,
    step_record,
)

H100, B200 = load_card("h100"), load_card("b200")
FACTORS = {
    "gemm.bf16": 1 / 0.8, "attention.forward": 1 / 1.3, "attention.backward": 1 / 1.3,
    "experts.forward.bf16": 1.2, "experts.backward.bf16": 1.2, "stream": 1.4,
}  # fmt: skip
"""Of the machine that the tests make up: products at 0.8 of the rate, attention at 1.3."""


def made_up() -> Card:
    """Return an H100 with those factors, half the network, and a slower domain."""
    links = H100.links
    assert links is not None and links.collectives is not None
    assert links.network_bytes_per_s is not None
    gather = links.collectives.gather
    slow = gather.model_copy(update={"efficiency": gather.efficiency / 1.5})
    changed = links.model_copy(
        update={
            "network_bytes_per_s": links.network_bytes_per_s / 2,
            "collectives": links.collectives.model_copy(update={"gather": slow}),
        }
    )
    kernels = H100.kernels.model_copy(update={"machine_factors": FACTORS})
    return H100.model_copy(update={"kernels": kernels, "links": changed})


def points(card: Card) -> list[dict[str, Any]]:
    """Return what that machine would measure: a dozen kernels, two dozen collectives."""
    kernels = [gemm_record(card, m) for m in (512, 1024, 4096, 8192)]
    kernels += [attention_record(card, seq_len) for seq_len in (1024, 4096, 8192)]
    kernels += [step_record(card, count) for count in (2 * 10**9, 5 * 10**9)]
    kernels += [layer_record(card, tokens) for tokens in (16_384, 32_768)]
    return kernels + [
        collective_record(card, operation, size, ranks, nodes)
        for operation in OPERATIONS
        for size in (2**16, 2**22, 2**28)
        for ranks, nodes in ((8, 1), (32, 4))
    ]


def calibrated(*rows: dict[str, Any], card: Card = H100) -> Calibration:
    return calibrate_card(card, bench_records(rows))


@pytest.fixture(scope="module")
def whole() -> Calibration:
    return calibrated(*points(made_up()))


def test_the_factors_of_a_made_up_machine_are_found(whole: Calibration) -> None:
    for kind, factor in FACTORS.items():
        # The made-up layers have no router, whose modelled time is taken off.
        room = 0.03 if kind.startswith("experts") else 1e-6
        assert whole.kinds[kind].factor == pytest.approx(factor, rel=room), kind
        assert whole.kinds[kind].error_after < 0.02 < whole.kinds[kind].error_before
    assert whole.kinds["network"].transfer_factor == pytest.approx(2, rel=0.02)
    assert whole.kinds["network"].latency_factor == pytest.approx(1, rel=0.1)
    assert whole.kinds["collectives.gather"].transfer_factor == pytest.approx(1.5, rel=0.02)
    assert whole.kinds["collectives.all_to_all"].transfer_factor == pytest.approx(1, rel=0.02)
    assert whole.kinds["gemm.bf16"].latency_factor is None
    assert (whole.unused, whole.notes) == ({}, ())
    assert whole.device == "NVIDIA H100 80GB HBM3"
    assert whole.spread < 0.01


@pytest.mark.parametrize(
    "layout",
    [
        {"ep": 8},
        {"tp": 4, "ep": 8},
        {"pp": 2, "ep": 16},
        {"cp": 2, "tp": 2, "ep": 8, "etp": 2},
    ],
)
def test_steps_are_then_those_of_the_made_up_machine(
    whole: Calibration, layout: dict[str, Any]
) -> None:
    work = job(64, **layout)
    truth, as_shipped, found = (
        StepTimes(Clock(card, BF16)).step(work).seconds for card in (made_up(), H100, whole.card)
    )
    assert abs(as_shipped / truth - 1) > 0.04
    assert found == pytest.approx(truth, rel=0.01)


def test_calibrating_again_changes_nothing(whole: Calibration) -> None:
    again = calibrated(*points(made_up()), card=whole.card)
    for kind, one in again.kinds.items():
        assert one.factor == pytest.approx(1, abs=0.01), kind
    factors = whole.card.kernels.machine_factors
    assert again.card.kernels.machine_factors == pytest.approx(factors, rel=0.01)


def test_one_absurd_point_of_a_kind_does_not_count() -> None:
    rows = points(made_up())
    absurd = [
        gemm_record(made_up(), 2048, factor=1000),
        collective_record(made_up(), "all_gather", 2**24),
        collective_record(made_up(), "reduce_scatter", 2**24, 32, 4),
    ]
    for row in absurd[1:]:
        row["result"]["time_s"]["median"] *= 300
    found = calibrated(*rows, *absurd)
    assert found.kinds["gemm.bf16"].factor == pytest.approx(1 / 0.8, rel=0.02)
    assert found.kinds["collectives.gather"].transfer_factor == pytest.approx(1.5, rel=0.03)
    assert found.kinds["network"].transfer_factor == pytest.approx(2, rel=0.03)


def test_other_precisions_stay_and_one_node_says_nothing_of_the_network() -> None:
    slow = [gemm_record(H100, m, factor=1.15 * noise) for m, noise in ((512, 0.97), (8192, 1.0))]
    found = calibrated(
        *slow, gemm_record(H100, 4096, factor=1.3), collective_record(H100, "all_gather", 2**20)
    )
    assert found.kinds["gemm.bf16"].factor == pytest.approx(1.15)
    for precision, factor in (("bf16", 1.15), ("fp8", 1.0)):
        before, after = (gemm_seconds(one, 999, 777, 555, precision) for one in (H100, found.card))
        assert after == pytest.approx(factor * before)
    assert found.card.links is not None and H100.links is not None
    assert found.card.links.network_bytes_per_s == H100.links.network_bytes_per_s
    assert found.notes == (
        "not measured, and as the card's file says: attention, experts, stream",
        "measured on one node: the network between nodes is as the card's file says",
    )


def test_what_stood_for_one_machines_kernels_makes_way() -> None:
    """B200's `training_stretch` is of the one machine whose steps were published."""
    assert set(B200.kernels.training_stretch) == {"bf16", "attention"}
    row = gemm_record(B200, 4096, factor=1.29)
    row["conditions"]["hardware"]["name"] = "NVIDIA B200"
    found = calibrated(row, card=B200)
    assert set(found.card.kernels.training_stretch) == {"attention"}
    assert found.card.kernels.machine_factors == pytest.approx({"gemm.bf16": 1.29})


def test_records_that_calibrate_nothing_are_counted_with_the_reason() -> None:
    several = layer_record(H100, 16_384)
    several["case"]["parallel"] = {"ep": 8}
    natural = layer_record(H100, 16_384)
    natural["result"]["routing"].pop()
    unequal = collective_record(H100, "all_gather", 2**20)
    unequal["case"]["nodes"] = 3
    two_ranks = {"hardware": gemm_record(H100, 512)["conditions"]["hardware"] | {"ranks": 2}}
    found = calibrated(
        gemm_record(H100, 4096),
        gemm_record(H100, 4096, groups=8),
        gemm_record(H100, 4096, groups=4),
        gemm_record(H100, 512, "fp32")
        | {"case": gemm_record(H100, 512)["case"] | {"dtype": "fp64"}},
        several,
        natural,
        layer_record(H100, 1),
        step_record(H100, 10**6),
        step_record(H100, 10**9) | {"conditions": two_ranks},
        unequal,
        record("loader", {}, {}),
    )
    assert found.unused == {
        "products of several groups: moe bench layer measures experts": 2,
        "fp64: not modelled for H100": 1,
        "layers over several ranks, with their exchange": 1,
        "layers without --routing forced": 1,
        "layers so small that launching them takes as long": 1,
        "collectives of nodes with unequal numbers of ranks": 1,
        "other benchmarks": 1,
        "steps over several ranks": 1,
        "steps so small that the host decides the optimizer's time": 1,
    }


@pytest.mark.parametrize(
    ("factor", "reason"),
    [
        (1 / 3, "products faster than 1.5 times the data sheet's bf16 rate"),
        (200.0, "gemm.bf16: over 100 times longer than modelled"),
    ],
)
def test_a_time_of_no_such_card_is_counted_and_calibrates_nothing(
    factor: float, reason: str
) -> None:
    found = calibrated(gemm_record(H100, 4096), gemm_record(H100, 8192, factor=factor))
    assert found.unused == {reason: 1}
    assert found.kinds["gemm.bf16"].factor == pytest.approx(1)
    slow = collective_record(H100, "all_gather", 2**20)
    slow["result"]["time_s"]["median"] *= factor if factor > 1 else 1e-3
    with pytest.raises(ParallelError, match="over 100 times"):
        calibrated(slow)


def test_where_nothing_calibrates_the_reasons_are_told() -> None:
    with pytest.raises(ParallelError, match=r"no record calibrates anything \(products of several"):
        calibrated(gemm_record(H100, 512, groups=8))
    with pytest.raises(ParallelError, match="the file has no record"):
        calibrated()
    bare = H100.model_copy(update={"links": None})
    with pytest.raises(ParallelError, match=r"H100's file has no \[links.collectives\]"):
        calibrated(collective_record(H100, "all_gather", 2**20), card=bare)


def test_a_point_counts_once() -> None:
    row = gemm_record(H100, 512)
    with pytest.raises(ParallelError, match="f: line 3: the same record as f: line 1"):
        calibrated(row, gemm_record(H100, 1024), row)
    later = row | {"conditions": row["conditions"] | {"measured_at": "later"}}
    assert calibrated(row, later).kinds["gemm.bf16"].points == 2


def test_the_routers_time_is_not_the_experts() -> None:
    """A layer is router and experts: the router's modelled time is taken off."""
    free = calibrated(layer_record(H100, 16_384)).kinds["experts.forward.bf16"].factor
    assert free < 1
    slow = calibrated(layer_record(H100, 16_384, router_seconds=1e-3))
    assert slow.kinds["experts.forward.bf16"].factor > free
