"""`moe bench` on the real engine: what a result holds, and that its parts add up."""

import json
from pathlib import Path
from typing import Any

import pytest

from parallel.hardware.card import load_card
from parallel.planner.calibration.records.user_points import calibrate_card
from tests.support.bench_commands import run_all
from tests.support.bench_points import bench_records
from tests.support.distributed import Ranks, run_ranks
from tests.support.fault_injection import wait_until
from tests.support.routing_recordings import write_recording
from tests.support.trained_runs import command, command_of_ranks, run_command

DENSE = """
[model]
num_layers = 1
hidden_size = 64
num_heads = 4
ffn_hidden_size = 128
vocab_size = 512
max_seq_len = 128
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    dense = tmp_path_factory.mktemp("bench") / "dense.toml"
    dense.write_text(DENSE)
    recording = write_recording(
        dense.with_name("routing.safetensors"), layers=(1,), tokens=48, num_experts=4
    )
    found: dict[str, Any] = run_ranks(1, run_all, str(dense), str(recording))[0]
    return found


def record(results: dict[str, Any], name: str, number: int = 0) -> Any:
    assert results[name]["code"] == 0, results[name]["error"]
    return json.loads(results[name]["out"])[number]


def test_step_names_what_was_cut_and_what_ran(results: dict[str, Any]) -> None:
    step = record(results, "step")
    assert (step["case"]["layers"], step["case"]["of_layers"]) == (1, 4)
    assert "GroupedExperts" in step["result"]["execution"]["experts"]
    conditions = step["conditions"]
    for key in ("hardware", "packages", "commit", "command", "measured_at", "load_average"):
        assert key in conditions


def test_step_names_the_kernels_that_took_longest(results: dict[str, Any]) -> None:
    kernels = record(results, "step")["result"]["longest_kernels"]
    assert {"aten::mm", "aten::_grouped_mm"} & {kernel["name"] for kernel in kernels}
    times = [kernel["time_s"] for kernel in kernels]
    assert times == sorted(times, reverse=True)
    assert len(kernels) == 20
    assert all(kernel["calls"] > 0 for kernel in kernels)


def test_step_measures_every_routing(results: dict[str, Any]) -> None:
    result = record(results, "step")["result"]
    rows = {row["routing"]: row for row in result["routing"]}
    assert list(rows) == ["natural", "forced", "hot:1"]
    assert rows["forced"]["routing_source"] == {"kind": "forced"}
    natural = rows["natural"]["routing_source"]
    # Fewer steps than the criterion needs.
    assert (natural["kind"], natural["steps"], natural["steady"]) == ("warmed up", 3, False)
    assert natural["changes"] is None
    assert natural["last_loss"] < natural["first_loss"]
    assert natural["store"] == "Python's standard library as bytes"
    # Every token at one of eight experts: half of all assignments, four times the even share.
    assert rows["hot:1"]["busiest_over_even"] == pytest.approx(4.0)
    assert rows["forced"]["busiest_over_even"] < 1.5
    for row in rows.values():
        ours = row["moescale"]
        assert ours["step_s"]["low"] <= ours["step_s"]["median"] <= ours["step_s"]["high"]
        assert ours["tokens_per_s"] == pytest.approx(128 / ours["step_s"]["median"])
        flops = result["parameters"]["training_flops_per_token"]
        assert ours["flops_per_s_per_device"] == pytest.approx(ours["tokens_per_s"] * flops)
        assert ours["mfu_of_measured_peak"] > 0
        assert ours["mfu_of_datasheet"] is None
        assert ours["datasheet_peak"]["reason"]
        assert row["energy_per_token"]["kind"] in ("measured", "modelled")
        assert row["energy_per_token"]["value"] > 0


@pytest.mark.needs("hub")
def test_a_peer_runs_beside_under_every_routing(results: dict[str, Any]) -> None:
    rows = record(results, "peer")["result"]["routing"]
    assert [row["routing"] for row in rows] == ["natural", "forced", "hot:1"]
    for row in rows:
        assert row["peer"]["name"] == "transformers (grouped_mm)"
        assert row["speed_over_peer"]["repeats"] == 2


def test_natural_steps_stand_beside_forced_ones(results: dict[str, Any]) -> None:
    for name, layers in (("step", 1), ("replay", 2)):
        result = record(results, name)["result"]
        cost = result["routing_cost"]
        assert [row["layer"] for row in cost["layers"]] == list(range(layers))
        for row in (*cost["layers"], cost["step"]):
            assert row["time_over_forced"]["repeats"] == 2
            assert min(row["natural_s"]["low"], row["forced_s"]["low"]) > 0
        for row in cost["layers"]:
            for key in ("natural_s", "forced_s"):
                assert row[key]["high"] < cost["step"][key]["high"]
            assert row["busiest_over_even"] >= 1
            assert 1 <= row["forced_busiest_over_even"] < 2
        assert result["split_routing"] == "natural"


def test_a_recording_is_replayed_as_it_is(results: dict[str, Any]) -> None:
    result = record(results, "replay")["result"]
    rows = {row["routing"]: row for row in result["routing"]}
    assert list(rows) == ["untrained", "natural", "forced"]
    assert rows["untrained"]["routing_source"] == {"kind": "untrained"}
    source = rows["natural"]["routing_source"]
    assert (source["kind"], source["run"], source["step"]) == ("replay", "runs/tests", 7)
    case = record(results, "replay")["case"]
    assert case["replay"] == f"{source['file']} {source['sha256'][:12]}"
    assert (source["tokens"], source["tokens_a_step"]) == (48, 32)
    # One recorded layer stands for both.
    assert source["recorded_layers"] == {"0": 0, "1": 0} and source["layers_repeat"]
    # Neighbouring experts in turn: 32 tokens go to each of 4 experts as often.
    assert rows["natural"]["busiest_over_even"] == pytest.approx(1.0)
    for layer in result["routing_cost"]["layers"]:
        assert layer["busiest_over_even"] == pytest.approx(1.0)


def test_a_layer_alone_is_routed_as_recorded(results: dict[str, Any]) -> None:
    natural, forced = record(results, "replayed layer")["result"]["routing"]
    assert (natural["routing"], forced["routing"]) == ("natural", "forced")
    assert natural["routing_source"]["recorded_layers"] == {"0": 0}
    assert natural["busiest_over_even"] == pytest.approx(1.0)
    assert natural["time_over_forced_interval"]["repeats"] == 2
    assert forced["time_over_forced"] == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("replay of other experts", "it chose 2 of 4 experts, this model has 2 of 16"),
        ("replay for nothing", "--replay is of --routing natural"),
        ("no such recording", "--replay 'large': there is study"),
        ("natural layer", "give a recording with --replay"),
    ],
)
def test_routing_that_cannot_be_is_refused(
    results: dict[str, Any], name: str, message: str
) -> None:
    assert results[name]["code"] == 2
    assert message in results[name]["error"]


def test_time_split_adds_up(results: dict[str, Any]) -> None:
    for name in ("step", "dense"):
        split = dict(record(results, name)["result"]["split_s"])
        whole, waiting = split.pop("step"), split.pop("communication")
        assert waiting is None
        assert sum(split.values()) == pytest.approx(whole)
        assert all(seconds >= 0 for part, seconds in split.items()), split
        sparse = {"router", "dispatch", "experts"} <= split.keys()
        assert sparse == (name == "step")
        assert ("dense FFN" in split) == (name == "dense")
        for part in ("attention", "head and loss", "optimizer"):
            assert split[part] > 0


def test_memory_by_kind_is_exact_where_it_can_be(results: dict[str, Any]) -> None:
    result = record(results, "step")["result"]
    total = result["parameters"]["total_parameters"]
    memory = result["memory"]
    assert memory["parameters_bytes"] == pytest.approx(4 * total, rel=0.01)
    assert memory["gradients_bytes"] == pytest.approx(4 * total, rel=0.01)
    assert memory["optimizer_bytes"] == pytest.approx(8 * total, rel=0.05)
    assert memory["activations_bytes"] > 2 * 64 * 256 * 4  # at least the layer's input
    assert memory["peak_bytes"] > 16 * total


def test_granularity_keeps_parameters_and_work(results: dict[str, Any]) -> None:
    coarse, fine = record(results, "layer", 0), record(results, "layer", 1)
    assert (fine["case"]["num_experts"], fine["case"]["top_k"]) == (32, 8)
    assert fine["case"]["expert_ffn_hidden_size"] == 16
    router = 64 * (32 - 8)
    assert fine["result"]["parameters"] - coarse["result"]["parameters"] == router
    for row in fine["result"]["routing"]:
        assert row["forward_s"]["median"] > 0
        assert row["backward_s"]["median"] > 0


def test_routing_profiles_are_compared_with_even(results: dict[str, Any]) -> None:
    rows = {row["routing"]: row for row in record(results, "routing")["result"]["routing"]}
    assert list(rows) == ["untrained", "forced", "zipf:1", "hot:0.5", "hot:1"]
    assert rows["forced"]["time_over_forced"] == 1
    assert rows["hot:1"]["busiest_over_even"] == pytest.approx(4.0)
    assert rows["hot:0.5"]["busiest_over_even"] == pytest.approx(2.0, abs=0.6)


def test_inference_stands_beside_its_dense_equals(results: dict[str, Any]) -> None:
    rows = record(results, "inference")["result"]["variants"]
    model, active, total = (
        rows[name] for name in ("model", "dense, equal active", "dense, equal total")
    )
    router = 2 * 4 * 64
    assert active["active_parameters"] == model["active_parameters"] - router
    assert total["total_parameters"] == model["total_parameters"] - router
    assert active["total_parameters"] == active["active_parameters"]
    for row in rows.values():
        decode = row["decode_s"]["median"]
        assert row["decode_tokens_per_s"] == pytest.approx(4 * 3 / decode)
        assert row["prefill_tokens_per_s"] == pytest.approx(4 * 16 / row["prefill_s"]["median"])
        assert row["energy_per_generated_token"]["value"] > 0
    assert model["decode_time_over_model"] == 1


def test_checkpoint_holds_weights_and_both_moments(results: dict[str, Any]) -> None:
    result = record(results, "checkpoint")["result"]
    assert result["bytes"] > 3 * 4 * 188_000
    assert result["save_bytes_per_s"] == pytest.approx(result["bytes"] / result["save_s"]["median"])


def test_table_for_people(results: dict[str, Any]) -> None:
    assert results["table"]["code"] == 0, results["table"]["error"]
    out = results["table"]["out"]
    for word in ("natural", "forced", "attention", "optimizer", "activations", "one rank"):
        assert word in out


def test_a_plan_is_calibrated_on_layers_and_steps(results: dict[str, Any]) -> None:
    measured = [*json.loads(results["layer"]["out"]), record(results, "step")]
    found = calibrate_card(load_card("cpu"), bench_records(measured))
    assert {"experts.forward.fp32", "experts.backward.fp32", "stream"} == set(found.kinds)


def test_mistakes_are_one_line(results: dict[str, Any]) -> None:
    assert results["alone"]["code"] == 2
    assert "--nproc 2" in results["alone"]["error"]
    assert results["other section"]["code"] == 2
    assert "parallel, precision, energy only" in results["other section"]["error"]


def test_collectives_between_two_processes_are_kept(tmp_path: Path) -> None:
    words = ["bench", "collectives", "--nproc", "2", "--size", "4096", "--repeats", "2",
             "--warmup", "1", "--json", "--out", str(tmp_path / "kept.jsonl")]  # fmt: skip
    code, out, err = command(*words)
    assert code == 0, err[-3000:]
    records = json.loads(out)
    found = {record["case"]["operation"]: record for record in records}
    assert set(found) == {"all_reduce", "all_gather", "reduce_scatter", "all_to_all"}
    reduced = found["all_reduce"]["result"]
    # Over two ranks all-reduce moves each byte once, the others half of them.
    assert reduced["bus_bytes_per_s"] == pytest.approx(reduced["algorithm_bytes_per_s"])
    gathered = found["all_gather"]["result"]
    assert gathered["bus_bytes_per_s"] == pytest.approx(gathered["algorithm_bytes_per_s"] / 2)
    assert reduced["algorithm_bytes_per_s"] == pytest.approx(4096 / reduced["time_s"]["median"])
    kinds = calibrate_card(load_card("cpu"), bench_records(records)).kinds
    assert {name: kind.points for name, kind in kinds.items()} == {
        "collectives.all_reduce": 1, "collectives.all_to_all": 1, "collectives.gather": 2,
    }  # fmt: skip
    _, out, err = command_of_ranks(2, *words)
    assert err.count("kept from an earlier run") == 4
    assert json.loads(out) == records


def test_a_killed_benchmark_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "layers.jsonl"
    words = ("bench", "layer", "--hidden", "64", "--ffn", "64", "--tokens", "64", "--tokens", "256",
             "--repeats", "2", "--warmup", "0", "--out", str(out), "--json")  # fmt: skip
    started = Ranks(1, run_command, words)
    wait_until(lambda: out.exists() or not started.processes[0].is_alive())
    started.kill()
    first = json.loads(out.read_text().splitlines()[0])
    code, printed, err = command(*words)
    assert code == 0, err[-3000:]
    records = json.loads(printed)
    assert [record["case"]["tokens"] for record in records] == [64, 256]
    assert records[0] == first
    assert "kept from an earlier run" in err


@pytest.mark.engine
def test_pipeline_stages_name_their_waiting(tmp_path: Path) -> None:
    code, out, err = command_of_ranks(
        2, "bench", "step", "tiny", "--set", "parallel.pp=2", "--seq-len", "32",
        "--micro-batch", "1", "--global-batch", "2", "--routing", "natural", "--repeats", "2",
        "--warmup", "0", "--settle-steps", "2", "--json",
    )  # fmt: skip
    assert code == 0, err[-3000:]
    [record] = json.loads(out)
    split = dict(record["result"]["split_s"])
    whole, waiting = split.pop("step"), split.pop("communication")
    assert sum(split.values()) == pytest.approx(whole)
    assert waiting > 0
    assert "waiting for later stages" in split
    assert "head and loss" not in split
