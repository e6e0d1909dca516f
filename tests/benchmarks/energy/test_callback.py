"""The energy callback on one and several ranks: phases, lost counters, restarts, kills."""

from pathlib import Path

import pytest

from benchmarks.energy.phases import phase_meter
from benchmarks.energy.phases.phase_log import phase_intervals, read_phases
from benchmarks.energy.source import SourceInfo
from benchmarks.energy.sources.model import CpuModelSource
from benchmarks.energy.sources.slurm import SlurmSource
from tests.support.fake_meters import FakeClock, FakeGpu, FakeNvml, Rank, Ranks, nvml_rank, one_gpu


def train(ranks: Ranks, clock: FakeClock, steps: int, *, first: int = 1) -> list[float | None]:
    ranks.phase("train")
    rows = []
    for step in range(first, first + steps):
        clock.advance(1.0)
        rows.append(ranks.step(step, 1000 * step)[0])
    return rows


def test_joules_by_phase_and_per_token(clock: FakeClock, tmp_path: Path) -> None:
    _, nvml = one_gpu(clock)
    ranks = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    ranks.start()
    clock.advance(3.0)
    rows = train(ranks, clock, 10)
    ranks.phase("evaluate")
    clock.advance(2.0)
    record = ranks.finish()
    assert rows == pytest.approx([500.0] * 10)
    assert record["train"]["value"] == pytest.approx(5000)
    assert record["phases"]["evaluate"]["value"] == pytest.approx(1000)
    assert record["phases"]["idle"]["value"] == pytest.approx(1500)
    assert record["total"]["value"] == pytest.approx(7500)
    assert record["per_token"]["value"] == pytest.approx(0.5)
    assert record["mean_power"]["value"] == pytest.approx(500)
    assert (record["kind"], record["boundary"]) == ("measured", "GPU board")


def test_the_total_is_as_sure_as_its_two_ends_however_many_phases(
    clock: FakeClock, tmp_path: Path
) -> None:
    """A reading between two phases is in both with opposite signs: it cancels in their sum."""
    gpu, nvml = one_gpu(clock)
    clock.advance(0.07)
    ranks = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    ranks.start()
    begin = clock.now
    for step in range(30):
        train(ranks, clock, 1, first=step + 1)
        clock.advance(0.033)
        ranks.phase("evaluate")
        clock.advance(0.54)
    end = clock.now
    record = ranks.finish()
    two_readings = 2 * 0.1 * 700  # each up to 0.1 s old, at the board's limit
    assert record["total"]["uncertainty"] == pytest.approx(two_readings)
    assert record["train"]["uncertainty"] == pytest.approx(30 * two_readings)
    assert abs(record["total"]["value"] - gpu.watts * (end - begin)) <= two_readings

    second = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    second.start()
    train(second, clock, 2, first=31)
    assert second.finish()["total"]["uncertainty"] == pytest.approx(2 * two_readings)


def test_idle_power_is_measured_before_the_run(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, nvml = one_gpu(clock, watts=70.0)
    monkeypatch.setattr(phase_meter.time, "sleep", clock.advance)
    ranks = Ranks([nvml_rank(nvml, "GPU-a", clock, idle_seconds=5.0)], tmp_path)
    ranks.start()
    gpu.watts, gpu.start_mj, gpu.born = 600.0, gpu.energy_mj, clock.now
    train(ranks, clock, 4)
    record = ranks.finish()
    assert record["idle_power"]["value"] == pytest.approx(70)
    assert record["train"]["value"] == pytest.approx(2400)  # nothing subtracted


def test_a_wrapped_counter_goes_on(clock: FakeClock, tmp_path: Path) -> None:
    gpu, nvml = one_gpu(clock)
    gpu.modulus, gpu.start_mj = 2**32, 2**32 - 1_200_000
    ranks = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    ranks.start()
    rows = train(ranks, clock, 6)
    assert gpu.energy_mj < 2**31  # it did wrap
    assert rows == pytest.approx([500.0] * 6)


@pytest.mark.parametrize(("fault", "reason"), [("reset", "was reset"), ("vanish", "GPU is lost")])
def test_a_lost_counter_gives_null_with_the_reason(
    clock: FakeClock, tmp_path: Path, fault: str, reason: str
) -> None:
    gpu, nvml = one_gpu(clock)
    ranks = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    ranks.start()
    before = train(ranks, clock, 3)
    if fault == "reset":
        gpu.reset()
    else:
        gpu.vanished = True
    after = train(ranks, clock, 3, first=4)
    record = ranks.finish()
    assert None not in before
    assert after == [None, None, None]
    for name in ("total", "train", "per_token"):
        assert record[name]["value"] is None
        assert reason in record[name]["reason"]


def test_every_rank_counts_and_one_gpu_counts_once(clock: FakeClock, tmp_path: Path) -> None:
    nvml = FakeNvml({"GPU-a": FakeGpu(clock, 500.0), "GPU-b": FakeGpu(clock, 300.0)})
    members = [nvml_rank(nvml, uuid, clock) for uuid in ("GPU-a", "GPU-b", "GPU-b")]
    ranks = Ranks(members, tmp_path)
    ranks.start()
    rows = train(ranks, clock, 32)
    record = ranks.finish()
    assert rows[:31] == [None] * 31
    assert rows[31] == pytest.approx(32 * 800)
    assert record["devices"] == ["GPU-a", "GPU-b"]
    assert record["train"]["value"] == pytest.approx(32 * 800)
    assert record["phases"]["train"]["seconds"] == pytest.approx(32)


def test_a_missing_rank_makes_energy_null_never_smaller(clock: FakeClock, tmp_path: Path) -> None:
    nvml = FakeNvml({"GPU-a": FakeGpu(clock, 500.0), "GPU-b": FakeGpu(clock, 300.0)})
    members = [nvml_rank(nvml, uuid, clock) for uuid in ("GPU-a", "GPU-b")]
    ranks = Ranks(members, tmp_path, silent={1})
    ranks.start()
    rows = train(ranks, clock, 32)
    record = ranks.finish()
    assert rows[31] is None
    assert record["per_token"]["value"] is None
    assert "rank 1 did not report" in record["per_token"]["reason"]


def test_a_rank_without_meter_makes_energy_null(clock: FakeClock, tmp_path: Path) -> None:
    _, nvml = one_gpu(clock)
    members = [nvml_rank(nvml, "GPU-a", clock), Rank(lambda: None, clock)]
    ranks = Ranks(members, tmp_path)
    ranks.start()
    train(ranks, clock, 2)
    record = ranks.finish()
    assert record["train"]["value"] is None
    assert "rank 1" in record["train"]["reason"]


class NodeMeter:
    """A node-wide counter; says how often it was read."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.reads = clock, 0
        self.info = SourceInfo(
            name="rapl",
            kind="measured",
            boundary="CPU packages",
            device="CPU of node",
            resolution_s=1e-3,
            max_power_watts=200.0,
            scope="node",
        )

    def read_joules(self) -> float:
        self.reads += 1
        return 150.0 * self.clock.now


def test_one_rank_reads_a_node(clock: FakeClock, tmp_path: Path) -> None:
    meters = [NodeMeter(clock) for _ in range(3)]
    ranks = Ranks([Rank(lambda m=m: m, clock) for m in meters], tmp_path)
    ranks.start()
    train(ranks, clock, 4)
    record = ranks.finish()
    assert record["train"]["value"] == pytest.approx(600)
    assert [meter.reads > 0 for meter in meters] == [True, False, False]


def test_totals_survive_a_restart(clock: FakeClock, tmp_path: Path) -> None:
    _, nvml = one_gpu(clock)
    first = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    first.start()
    train(first, clock, 4)
    first.phase("checkpoint")
    state = first.members[0].callback.state()
    clock.advance(1000)  # the queue, not ours
    second = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    second.start(state)
    train(second, clock, 6, first=5)
    record = second.finish()
    assert record["train"]["value"] == pytest.approx(5000)
    assert record["per_token"]["value"] == pytest.approx(0.5)
    assert record["starts"] == 2


def test_a_killed_start_is_metered_and_its_lost_work_stands_apart(
    clock: FakeClock, tmp_path: Path
) -> None:
    """Killed three steps after a checkpoint: nothing is left out, nothing is counted as kept."""
    _, nvml = one_gpu(clock)
    first = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    first.start()
    train(first, clock, 4)
    first.phase("checkpoint")
    state = first.members[0].callback.state()
    clock.advance(2)  # writing the checkpoint
    first.phase("train")
    for _ in range(3):
        clock.advance(31)
        first.step(5, 5000)
    second = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    second.start(state)
    train(second, clock, 6, first=5)
    record = second.finish()
    joules = {name: phase["value"] for name, phase in record["phases"].items()}
    assert joules["checkpoint"] == pytest.approx(1000)
    assert joules["redone"] == pytest.approx(93 * 500)
    assert joules["train"] == pytest.approx(5000)
    assert record["total"]["value"] == pytest.approx(sum(joules.values()))
    assert "killed once" in record["total"]["reason"]
    assert record["per_token"]["value"] == pytest.approx(0.5)
    found, killed = phase_intervals(read_phases(tmp_path))
    assert killed == 1
    assert [s.phase for s in found] == ["idle", "train", "checkpoint", "idle", "train", "idle"]


def test_a_resume_without_totals_gives_null(clock: FakeClock, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "tokens": 4000}\n')
    _, nvml = one_gpu(clock)
    ranks = Ranks([nvml_rank(nvml, "GPU-a", clock)], tmp_path)
    ranks.start()
    train(ranks, clock, 2, first=5)
    record = ranks.finish()
    assert record["per_token"]["value"] is None
    assert "resumed" in record["per_token"]["reason"]


def test_model_claims_no_idle_power_and_no_uncertainty(clock: FakeClock, tmp_path: Path) -> None:
    rank = Rank(lambda: CpuModelSource("node", None, 2, lambda: clock.now), clock)
    ranks = Ranks([rank], tmp_path)
    ranks.start()
    train(ranks, clock, 3)
    record = ranks.finish()
    assert record["idle_power"]["value"] is None
    assert "only a counter" in record["idle_power"]["reason"]
    assert record["train"]["uncertainty"] is None
    assert record["train"]["kind"] == "modelled"


@pytest.mark.parametrize(("figure", "joules"), [("9000", 9000), ("0", None)])
def test_a_step_whose_first_figure_comes_late_is_metered_whole(
    figure: str, joules: float | None, clock: FakeClock, tmp_path: Path
) -> None:
    def run(argv: list[str]) -> str:
        if argv[0] == "scontrol":
            return "AcctGatherEnergyType = acct_gather_energy/ipmi\n"
        return figure if clock.now >= 1020 else "0"

    ranks = Ranks([Rank(lambda: SlurmSource({"SLURM_JOB_ID": "17"}, run), clock)], tmp_path)
    ranks.start()
    train(ranks, clock, 40)
    record = ranks.finish()
    assert record["total"]["value"] == joules
    assert record["idle_power"]["value"] is None
    assert joules or "the counter did not move in 40 s" in record["total"]["reason"]
