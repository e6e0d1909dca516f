"""`moe train` and `moe demo` as a user runs them: results, and one line for every mistake."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import moescale
from tests.support.distributed import run_ranks
from tests.support.paths import ROOT
from tests.support.trained_runs import command, command_of_ranks, run_command

EXPERIMENT = """
name = "try"
[model]
preset = "tiny"
[data]
store = "{store}"
[train]
steps = 6
seq_len = 32
global_batch_size = 4
micro_batch_size = 2
learning_rate = 1e-2
warmup_steps = 2
eval_interval = 3
eval_sequences = 8
[energy]
source = "model"
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from data.build.build import build_store

    folder = tmp_path_factory.mktemp("store")
    build_store([ROOT / "data"], folder / "store", tokenizer="bpe:512", held_out_fraction=0.2)
    return folder / "store"


@pytest.fixture
def experiment(store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "experiment.toml"
    path.write_text(EXPERIMENT.format(store=store))
    return path


def moe(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moescale", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=600, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.engine
def test_train_writes_what_it_promises(experiment: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = moe("train", experiment, "--run-dir", run_dir, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((run_dir / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == 6
    assert record["tokens"] == 6 * 4 * 32
    assert record["run_dir"] == str(run_dir)
    assert record["tokens_per_s"] > 0
    assert record["energy"]["kind"] == "modelled"
    assert record["execution"]["experts"].endswith(".GroupedExperts")
    modelled, measured = record["memory"]["modelled"], record["memory"]["measured"]
    assert measured["boundary"] == "process resident size"
    state = sum(modelled[f"{name}_bytes"] for name in ("parameter", "gradient", "optimizer"))
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert measured["peak_bytes"] - measured["start_bytes"] > state > 0
    else:  # the kernel does not let a peak begin anew
        assert measured["peak_bytes"] is None
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[0]["z_loss"] > 0
    evaluations = [
        json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in evaluations] == [3, 6]
    assert record["final_loss"] == evaluations[-1]["loss"]
    loads = [json.loads(line) for line in (run_dir / "expert_load.jsonl").read_text().splitlines()]
    routed = 4 * 32 * 2  # tokens of a step times top_k
    assert all(sum(counts) == routed for row in loads for counts in row["counts"])
    assert any((run_dir / "events").iterdir())
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr

    code, out, err = command("train", experiment, "--run-dir", run_dir)
    assert (code, out) == (2, "")
    assert "already holds a run" in err
    assert len(err.strip().splitlines()) == 1
    code, out, err = command("train", experiment, "--run-dir", run_dir, "--resume", "--json")
    assert code == 0, err
    assert json.loads(out) == record


def test_a_resume_of_nothing_says_so(experiment: Path, tmp_path: Path) -> None:
    """A changed experiment has another directory: there, a new run would start."""
    missing = 'data.store="missing"'
    code, _, err = command(
        "train", experiment, "--resume", "--run-dir", tmp_path / "run", "--set", missing
    )
    assert code == 2
    assert f"no run to resume in {tmp_path / 'run'}: a new one starts" in err


def test_a_row_over_several_steps_has_their_mean_router_losses(
    experiment: Path, tmp_path: Path
) -> None:
    rows = {}
    for interval in (1, 3):
        run_dir = tmp_path / f"every{interval}"
        code, _, err = command(
            "train", experiment, "--run-dir", run_dir, "--set", f"train.log_interval={interval}"
        )
        assert code == 0, err
        lines = (run_dir / "metrics.jsonl").read_text().splitlines()
        rows[interval] = [json.loads(line) for line in lines]
    for name in ("load_balancing_loss", "z_loss"):
        mean = sum(row[name] for row in rows[1][:3]) / 3
        assert rows[3][0][name] == pytest.approx(mean, rel=1e-5)


def test_two_processes_train_the_same_model(experiment: Path, tmp_path: Path) -> None:
    losses = []
    for nproc, layout in ((1, "parallel.ep=1"), (2, "parallel.ep=2")):
        run_dir = tmp_path / f"run{nproc}"
        code, out, err = command_of_ranks(
            nproc, "train", experiment, "--run-dir", run_dir, "--set", layout, "--json"
        )
        assert code == 0, err
        losses.append(json.loads(out)["final_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_power_log_that_is_not_there_is_refused_before_anything_starts(
    experiment: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    log = ("--set", "energy.source=csv", "--set", f"energy.power_csv={tmp_path}/pdu.csv")
    for more in (("--dry-run",), ("--run-dir", run_dir)):
        code, _, err = command("train", experiment, *log, *more)
        assert code == 2
        assert err.strip().splitlines() == [
            f"moe: energy.power_csv = {tmp_path}/pdu.csv: No such file or directory: start its"
            " logger first, or name its file"
        ]
    assert not run_dir.exists()


def test_a_run_directory_in_use_is_refused(experiment: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with (run_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = command("train", experiment, "--run-dir", run_dir)
    assert code == 2
    assert err.strip().splitlines() == [
        f"moe: run directory {run_dir} is in use by another process: wait for it, or choose"
        " another with --run-dir"
    ]


BAD_INPUT = {
    "unknown key": (["train.step=3"], "unknown key train.step: did you mean train.steps?"),
    "impossible layout": (["parallel.tp=3"], "tp*cp*pp = 3*1*1 = 3 does not divide 2 ranks"),
    "sparse model without sequence parallelism": (
        ["parallel.tp=2", "parallel.sp=false"], "set sp=true or tp=1"
    ),
    "ranks that do not match": (["parallel.pp=2"], "tp*cp*pp"),
    "missing store": (["data.store=/nowhere/store"], "/nowhere/store"),
    "more state than any machine has": (
        ["model.vocab_size=100000000000"], 'parallel.memory_check = "warn" starts all the same'
    ),
    "vocabulary too small": (["model.vocab_size=256"], "vocab"),
    "sequence longer than the model's": (
        ["train.seq_len=256"], "longer than the model's max_seq_len=128"
    ),
    "GPU without GPU": (['parallel.device="cuda"'], "no GPU"),
    "kernels without Transformer Engine": (
        ['precision.kernels="te"'], "Transformer Engine is not installed"
    ),
    "dispatcher of GPUs": (
        ['parallel.dispatcher="flex"', "parallel.ep=2", "parallel.etp=1"],
        'set parallel.dispatcher = "alltoall"',
    ),
    "overlap of experts on one rank": (
        ["parallel.overlap_experts=true"], "set ep >= 2 or overlap_experts=false"
    ),
    "part that cannot be recomputed": (
        ['parallel.recompute="selective"', 'parallel.recompute_modules=["moe_act"]'],
        'recompute "moe" instead',
    ),
    "FP8 without Transformer Engine": (
        ['precision.fp8="mxfp8"'], 'fp8 = "emulated" with fp8_scaling = "mxfp8" gives its losses'
    ),
    "FP8 without the sizes for it": (
        ['precision.kernels="te"', 'precision.dtype="bf16"', 'precision.fp8="mxfp8"',
         "train.seq_len=24"],
        "seq_len * micro_batch_size / cp = 48 is not a multiple of 32",
    ),
    "batch that does not divide": (["train.global_batch_size=5"], "5"),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line(
    experiment: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    message: str,
) -> None:
    sets = [part for override in overrides for part in ("--set", override)]
    nproc = "2" if any("tp" in override for override in overrides) else "1"
    arguments = ["train", str(experiment), "--run-dir", str(tmp_path / "run"), "--nproc", nproc]
    monkeypatch.setattr(sys, "argv", ["moe", *arguments, *sets])
    with pytest.raises(SystemExit) as exited:
        moescale.main()
    assert exited.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_dry_run_refuses_what_a_run_refuses(
    experiment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, message = BAD_INPUT["FP8 without the sizes for it"]
    sets = [part for override in overrides for part in ("--set", override)]
    monkeypatch.setattr(sys, "argv", ["moe", "train", str(experiment), "--dry-run", *sets])
    with pytest.raises(SystemExit) as exited:
        moescale.main()
    assert exited.value.code == 2
    written = capsys.readouterr()
    assert message in written.err and not written.out


def test_a_damaged_store_is_refused(
    experiment: Path, tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(store, damaged)
    for shard in damaged.rglob("*.arrow"):
        shard.write_bytes(shard.read_bytes()[:100])
    override = f'data.store="{damaged}"'
    monkeypatch.setattr(sys, "argv", ["moe", "train", str(experiment), "--set", override])
    with pytest.raises(SystemExit) as exited:
        moescale.main()
    assert exited.value.code == 2
    assert str(damaged) in capsys.readouterr().err


def test_dry_run_shows_everything_and_starts_nothing(experiment: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    code, out, err = command("train", experiment, "--run-dir", run_dir, "--dry-run", "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["experiment"]["train"]["steps"] == 6
    assert shown["layout"]["dp"] == 1
    assert shown["ledger"]["total_parameters"] == 189312
    assert shown["memory"]["kind"] == "modelled"
    assert not run_dir.exists()
    _, out, _ = command("train", experiment, "--dry-run")
    assert "peak memory on one rank (modelled)" in out


def _small_demo(arguments: tuple[str, ...]) -> tuple[int, str, str]:
    """Run the demo on batches of a fourth; CI runs it as it is (`make demo`)."""
    from benchmarks import demo

    demo.MIN_STEPS_A_TURN = 5
    demo._TRAIN |= {"global_batch_size": 2, "micro_batch_size": 2, "eval_sequences": 4}
    return run_command(arguments)


def test_demo_compares_two_models(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    text = [word for room in ("moe", "data", "benchmarks") for word in ("--text", str(ROOT / room))]
    arguments = ("demo", *text, "-o", str(out), "--steps", "10")
    code, printed, err = run_ranks(1, _small_demo, (*arguments, "--json"))[0]
    assert code == 0, err
    report = json.loads(printed)
    assert "At equal active parameters" in report["finding"]
    page = (out / "report" / "report.html").read_text()
    assert 'src="http' not in page
    records = [json.loads(p.read_text()) for p in sorted(out.glob("runs/*/record.json"))]
    dense, sparse = records
    assert sparse["tokens"] == dense["tokens"]
    # Trained in turns, dense, sparse, dense: what else the machine does meets both.
    assert [len(record["starts"]) for record in records] == [2, 1]
    assert [record["status"] for record in records] == ["finished"] * 2
    assert dense["goodput"]["allocated_s"] >= dense["wall_time_s"]
    active = [record["ledger"]["active_parameters"] for record in records]
    assert active[1] == pytest.approx(active[0], rel=0.01)
    assert sparse["ledger"]["total_parameters"] > 1.5 * dense["ledger"]["total_parameters"]
    code, printed, err = run_ranks(1, _small_demo, arguments)[0]
    assert code == 0, err
    assert "At equal active parameters" in printed
    assert "keep the token store" in err


def test_a_demo_killed_just_after_building_its_store_resumes(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.demo import run_demo

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def stopped_after_building(*_: Any, **__: Any) -> None:
        shutil.copytree(store, tmp_path / "store")
        stopped()

    monkeypatch.setattr("data.build.build.build_store", stopped_after_building)
    monkeypatch.setattr("benchmarks.demo.demo_experiments", stopped)
    lines: list[str] = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_demo([tmp_path], tmp_path, steps=1, print_line=lines.append)
    assert any("keep the token store" in line for line in lines)
