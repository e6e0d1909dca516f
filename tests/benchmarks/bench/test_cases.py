"""Resuming and imposed routing, without an engine."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

from benchmarks.bench import results
from benchmarks.bench.cases import Case, run_cases
from benchmarks.bench.forced_routing import RoutingProfile, max_over_mean, parse_profile
from benchmarks.bench.layer_fit import cut_layers, fewest_layers, fit_layers
from benchmarks.bench.layer_shape import published_layers, published_shape
from benchmarks.bench.peer_transformers import in_their_order, parse_peer
from benchmarks.bench.results import read_results
from benchmarks.errors import BenchmarkError
from moe.config.experiment import load_model
from moe.errors import StorageError
from parallel.hardware.datasheet import datasheet_peak

CONDITIONS = {"hardware": {"name": "a"}, "packages": {}, "python": "3.11", "commit": {}}


def test_saved_results_are_not_measured_again(tmp_path: Path) -> None:
    runs: list[int] = []
    out = tmp_path / "results" / "bench.jsonl"

    def cases(numbers: range) -> list[Case]:
        def measure(number: int) -> dict[str, Any]:
            runs.append(number)
            return {"value": number}

        return [Case({"n": n}, lambda n=n: measure(n)) for n in numbers]

    run_cases("b", cases(range(2)), CONDITIONS, out=out)
    with out.open("a") as file:
        file.write('{"format": 1, "ben')  # killed while writing
    lines: list[str] = []
    records = run_cases("b", cases(range(3)), CONDITIONS, out=out, on_status=lines.append)
    assert runs == [0, 1, 2]
    assert [record["result"]["value"] for record in records] == [0, 1, 2]
    assert lines[0] == "b 1/3: n 0: kept from an earlier run"
    assert lines[2] == "b 3/3: n 2"
    assert [json.loads(line)["case"]["n"] for line in out.read_text().splitlines()] == [0, 1, 2]
    other = {**CONDITIONS, "commit": {"commit": "new"}}
    run_cases("b", cases(range(1)), other, out=out)
    run_cases("c", cases(range(1)), CONDITIONS, out=out)
    assert runs == [0, 1, 2, 0, 0]


def test_all_ranks_skip_what_rank_0_saved(tmp_path: Path) -> None:
    """A rank that measures a case which the others skip would wait for them for ever."""
    out, shared, runs = tmp_path / "bench.jsonl", [], []

    def case(number: int) -> Case:
        return Case({"n": number}, lambda: runs.append(number) or {"value": number})

    def broadcast(value: Any) -> Any:
        shared.append(value)
        return value

    run_cases("b", [case(0)], CONDITIONS, out=out)
    both = [case(0), case(1)]
    run_cases("b", both, CONDITIONS, out=out, broadcast=broadcast)
    others = run_cases("b", both, CONDITIONS, broadcast=lambda _nothing: shared[0])
    assert runs == [0, 1, 1]
    assert [record["result"]["value"] for record in others] == [0, 1]


def test_a_large_model_is_cut_to_what_fits_and_says_so() -> None:
    model = load_model("qwen3-30b-a3b")
    per_layer = 1e9
    cut, note = fit_layers("m", model, None, 5.5e9, lambda m: m.num_layers * per_layer)
    assert cut.num_layers == 5
    assert note is not None
    assert note.startswith("m: only the first 5 of 48 layers are measured: all would need 48.0 GB")
    even, _ = fit_layers("m", model, None, 5.5e9, lambda m: m.num_layers * per_layer, multiple=2)
    assert even.num_layers == 4
    complete, note = fit_layers("m", model, None, 50e9, lambda m: m.num_layers * per_layer)
    assert (complete, note) == (model, None)
    with pytest.raises(BenchmarkError, match="1 of 48 layers need 1.0 GB, and 0.5 GB"):
        fit_layers("m", model, None, 0.5e9, lambda m: m.num_layers * per_layer)


def test_a_cut_model_keeps_a_sparse_layer() -> None:
    model = load_model("deepseek-v3")
    assert fewest_layers(model) == 4
    cut, note = fit_layers("d", model, 4, 0, lambda _model: 1)
    assert list(cut.sparse_layers) == [False, False, False, True]
    assert note == "d: only the first 4 of 61 layers are measured"
    with pytest.raises(BenchmarkError, match="first sparse layer is number 4"):
        cut_layers(model, 3)


def test_published_layers_are_of_exactly_that_shape() -> None:
    rows = published_layers(published_shape("mixtral", 1))
    assert len(rows) == 6
    assert {row["dispatcher"] for row in rows} == {"alltoall", "DeepEP", "HybridEP"}
    assert all(row["source"] for row in rows)
    assert published_layers(published_shape("mixtral", 2)) == []


def test_a_damaged_results_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('nonsense\n{"bench": "b"}\n')
    with pytest.raises(BenchmarkError, match=r"r\.jsonl: line 1 is damaged"):
        run_cases("b", [], CONDITIONS, out=path)


@pytest.mark.parametrize("name", ["folder", "latin-1.jsonl", "latin-1.jsonl/r.jsonl"])
def test_an_unusable_results_path_is_refused_before_measuring(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin-1.jsonl").write_bytes(b'{"bench": "\xe9"}\n')
    case = Case({"n": 1}, lambda: pytest.fail("measured"))
    with pytest.raises(BenchmarkError, match=rf"{name}: "):
        run_cases("b", [case], CONDITIONS, out=tmp_path / name)


def test_concurrent_benchmarks_keep_all_results(tmp_path: Path) -> None:
    out, both = tmp_path / "r.jsonl", Barrier(2)

    def measure(bench: str) -> None:
        both.wait(60)
        cases = [Case({"n": n}, lambda n=n: {"value": n}) for n in range(30)]
        run_cases(bench, cases, CONDITIONS, out=out)

    with ThreadPoolExecutor() as pool:
        list(pool.map(measure, "ab"))
    assert len(read_results(out)) == 60


def test_a_full_disk_is_not_called_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(results, "write_text", refuse)
    with pytest.raises(StorageError, match=r"r\.jsonl: No space left on device"):
        run_cases("b", [Case({}, dict)], CONDITIONS, out=tmp_path / "r.jsonl")


@pytest.mark.parametrize("text", ["natural", "untrained", "forced", "zipf:1.5", "hot:0.25"])
def test_profiles_are_parsed_and_printed(text: str) -> None:
    assert str(parse_profile(text)) == text


@pytest.mark.parametrize(
    "text", ["even", "dense", "zipf", "zipf:-1", "hot:2", "hot:x", "forced:1", ""]
)
def test_unknown_profiles_are_refused(text: str) -> None:
    with pytest.raises(BenchmarkError, match="write natural, untrained, forced, zipf:1.0"):
        parse_profile(text)


def drawn(profile: RoutingProfile, tokens: int = 20_000, experts: int = 8, top_k: int = 2) -> Any:
    choice = profile.draw_experts(tokens, experts, top_k, torch.Generator().manual_seed(0))
    assert choice is not None
    assert choice.shape == (tokens, top_k)
    ordered = choice.sort(dim=1).values
    assert bool((ordered[:, 1:] != ordered[:, :-1]).all())  # no expert twice for a token
    return choice, torch.bincount(choice.flatten(), minlength=experts).double() / tokens


def test_forced_routing_is_even() -> None:
    choice, share = drawn(RoutingProfile("forced"))
    assert share == pytest.approx([0.25] * 8, abs=0.02)
    assert max_over_mean(choice, 8) == pytest.approx(1.0, abs=0.05)


def test_a_hot_expert_gets_its_fraction_and_the_others_the_rest() -> None:
    _, share = drawn(RoutingProfile("hot", 0.6))
    assert float(share[0]) == pytest.approx(0.6, abs=0.02)
    assert share[1:] == pytest.approx([1.4 / 7] * 7, abs=0.02)


def test_zipf_with_one_expert_a_token_has_the_stated_proportions() -> None:
    _, share = drawn(RoutingProfile("zipf", 1.0), top_k=1)
    weights = torch.arange(1, 9).double() ** -1.0
    assert share == pytest.approx((weights / weights.sum()).tolist(), abs=0.015)


@pytest.mark.parametrize("kind", ["natural", "untrained", "dense"])
def test_what_is_not_drawn_forces_nothing(kind: Any) -> None:
    assert RoutingProfile(kind).draw_experts(4, 4, 2, torch.Generator()) is None


def test_a_peer_has_the_same_experts_for_the_same_token() -> None:
    # Ours: place 0 of sequences a and b, then place 1, ...; theirs: all of a, then all of b.
    ours = torch.tensor([[10, 11], [20, 21], [12, 13], [22, 23], [14, 15], [24, 25]])
    theirs = [[10, 11], [12, 13], [14, 15], [20, 21], [22, 23], [24, 25]]
    assert in_their_order(ours, 2).tolist() == theirs


def test_datasheets_and_peers() -> None:
    assert datasheet_peak("NVIDIA H100 80GB HBM3", "bf16").value == 989.5e12
    assert datasheet_peak("NVIDIA H100 PCIe", "bf16").value == 756e12
    assert datasheet_peak("NVIDIA H200", "bf16").kind == "published"
    assert "no data sheet kept for AMD EPYC" in (datasheet_peak("AMD EPYC", "bf16").reason or "")
    assert "fp32" in (datasheet_peak("NVIDIA H200", "fp32").reason or "")
    assert parse_peer(None) is None
    assert parse_peer("transformers") == "grouped_mm"
    with pytest.raises(BenchmarkError, match="there is transformers"):
        parse_peer("deepspeed")
