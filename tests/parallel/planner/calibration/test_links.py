"""Link parameters as shipped: errors on rows they were not fitted on; the fit itself."""

import csv
from math import log
from pathlib import Path
from statistics import median, quantiles

import pytest

from parallel.hardware.card import load_card
from parallel.hardware.links import Links
from parallel.planner.calibration.links import (
    DEEPEP_SIZES,
    NCCL_SIZES,
    LinkSample,
    deepep_samples,
    fit_links,
    main,
    nccl_samples,
    start_links,
)
from parallel.planner.calibration.samples import is_held_out, read_rows
from parallel.planner.communication_time.collectives import all_to_all_seconds
from parallel.planner.communication_time.expert_exchange import (
    Dispatcher,
    ExchangeSizes,
    exchange_seconds,
)
from parallel.planner.communication_time.routing_spread import expected_bins

HELD_OUT = Path(__file__).parents[1] / "held_out"
CARDS = ("h100", "h200", "b200", "gb200")


def links_of(name: str) -> Links:
    links = load_card(name).links
    assert links is not None
    return links


def read(name: str) -> list[dict[str, str]]:
    with (HELD_OUT / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def errors(samples: list[LinkSample], gpu: str) -> list[float]:
    links = links_of(gpu)
    return [abs(log(sample.predict(links) / sample.seconds)) for sample in samples]


@pytest.mark.parametrize("gpu", CARDS)
def test_collectives_that_were_held_out(gpu: str) -> None:
    rows = read_rows(HELD_OUT / "nccl_one_node.csv", NCCL_SIZES, held_out=True)
    found = errors(nccl_samples(row for row in rows if row["gpu"] == gpu), gpu)
    assert len(found) >= 20
    assert median(found) < 0.09 and quantiles(found, n=10)[-1] < 0.24


@pytest.mark.parametrize("gpu", CARDS)
def test_expert_exchanges_that_were_held_out(gpu: str) -> None:
    rows = read_rows(HELD_OUT / "deepep_normal.csv", DEEPEP_SIZES, held_out=True)
    found = errors(deepep_samples(row for row in rows if row["gpu"] == gpu), gpu)
    assert len(found) >= 40
    assert median(found) < 0.08 and quantiles(found, n=10)[-1] < 0.2


def test_every_row_of_the_small_tables_was_held_out() -> None:
    for name, sizes in (("nccl_one_node.csv", NCCL_SIZES), ("deepep_normal.csv", DEEPEP_SIZES)):
        assert all(is_held_out(row[column] for column in sizes) for row in read(name))


def test_published_exchanges_of_megatron_core() -> None:
    """arXiv:2603.07685 table 7, DeepSeek-V3: over nodes its tokens reach 4 of 8 groups."""
    found: dict[str, list[float]] = {"hybridep": [], "alltoall": []}
    for row in read("exchange_points.csv"):
        if row["metric"] != "time":
            continue
        limited = int(row["nodes"]) > 1
        sizes = ExchangeSizes(
            tokens=4096, hidden=7168, top_k=8, experts=256, ranks=int(row["ranks"]),
            ranks_per_domain=8, groups=8 if limited else 1, groups_per_token=4 if limited else 1,
        )  # fmt: skip
        dispatcher: Dispatcher = "hybridep" if row["library"] == "HybridEP" else "alltoall"
        exchange = exchange_seconds(links_of("h100"), sizes, dispatcher)
        both = {"dispatch": exchange.dispatch_seconds, "combine": exchange.combine_seconds}
        seconds = both[row["op"].split()[0]]
        found[dispatcher].append(abs(log(seconds * 1e6 / float(row["value"]))))
    assert len(found["hybridep"]) == len(found["alltoall"]) == 8
    assert median(found["alltoall"]) < 0.06 and max(found["alltoall"]) < 0.1
    assert median(found["hybridep"]) < 0.07 and max(found["hybridep"]) < 0.25


def test_all_to_all_over_elastic_fabric_adapters() -> None:
    """AWS's peak bus bandwidths, H100 with 400 Gb/s and B300 with 800 Gb/s a card."""
    found = []
    for row in read("exchange_points.csv"):
        if row["library"] != "NCCL":
            continue
        links = links_of(row["gpu"]).with_network(fabric="efa")
        ranks, num_bytes = int(row["ranks"]), 4e9
        seconds = all_to_all_seconds(links, num_bytes, ranks, 8)
        bus = num_bytes * (ranks - 1) / ranks / seconds / 1e9
        found.append(abs(log(bus / float(row["value"]))))
    assert len(found) == 7 and median(found) < 0.08 and max(found) < 0.2


@pytest.mark.parametrize(
    ("nodes", "dispatch", "combine"), [(1, 153, 158), (2, 43, 43), (4, 58, 57), (8, 51, 50)]
)
def test_deepep_on_a_card_that_was_not_fitted(nodes: int, dispatch: int, combine: int) -> None:
    """DeepEP's README (docs/legacy.md, dd758caf), H800, GB/s; own rank and node are counted."""
    sizes = ExchangeSizes(
        tokens=4096, hidden=7168, top_k=8, experts=256, ranks=8 * nodes, ranks_per_domain=8,
        dispatch_fp8=True, groups=8 if nodes > 4 else 1, groups_per_token=4 if nodes > 4 else 1,
        sms=24,
    )  # fmt: skip
    reached = expected_bins(nodes if nodes > 1 else 8, 256, 8, sizes.groups, sizes.groups_per_token)
    exchange = exchange_seconds(links_of("h800"), sizes, "deepep")
    copies = 4096 * reached * 7168 / 1e9
    assert copies * (1 + 4 / 128) / exchange.dispatch_seconds == pytest.approx(dispatch, rel=0.08)
    assert copies * 2 / exchange.combine_seconds == pytest.approx(combine, rel=0.08)


def test_the_fit_finds_the_parameters_that_made_the_times() -> None:
    truth = links_of("h100")
    assert truth.collectives is not None and truth.exchanges is not None
    rows = [
        {"gpu": "h100", "op": "all_gather", "gpus": str(gpus), "bytes": str(2**power), "us": "1"}
        for gpus in (2, 4, 8)
        for power in range(14, 30)
    ]
    samples = [
        LinkSample(
            group=sample.group,
            kind=sample.kind,
            seconds=sample.predict(truth),
            predict=sample.predict,
        )
        for sample in nccl_samples(rows)
    ]
    fitted = fit_links(start_links("h100", truth.exchanges), samples).collectives
    assert fitted is not None
    assert fitted.gather.efficiency == pytest.approx(truth.collectives.gather.efficiency, rel=0.01)
    assert fitted.gather.rank_seconds == pytest.approx(
        truth.collectives.gather.rank_seconds, rel=0.05
    )


def test_refitting_prints_sections_and_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "nccl_one_node.csv" in capsys.readouterr().err
    header = "gpu,op,gpus,bytes,us\n"
    rows = "".join(f"h100,all_gather,8,{2**power},{2**power / 1e5}\n" for power in range(22, 30))
    (tmp_path / "nccl_one_node.csv").write_text(header + rows, encoding="utf-8")
    (tmp_path / "deepep_normal.csv").write_text("gpu\n", encoding="utf-8")
    assert main([str(tmp_path)]) == 0
    assert "[links.collectives.gather]" in capsys.readouterr().out
