"""`moe sweep`: shown, run for real on the smallest model, written for a cluster."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moescale
from benchmarks.errors import BenchmarkError
from benchmarks.laws.run_points import points_from
from moe.config.experiment import load_experiment
from slurm.job.cluster_profile import ProfilesFile
from slurm.job.plan import SubmissionPaths, plan_training
from tests.support.store_helpers import build
from tests.support.sweep_designs import write_design
from tests.support.trained_runs import command


def shown(*words: str | Path) -> str:
    result = CliRunner().invoke(moescale.app, ["sweep", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_design_is_shown_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "kind = 'iso-flop'\nhold = [1e9]\n[axes]\nhidden_size = [32, 64]"
    design = write_design(tmp_path, text)
    output = shown(design)
    assert "Sweep design: 2 runs" in output
    assert "together: runs 2, flops" in output
    assert "not known: no speed: give --measured RUN, or --gpu" in output
    assert "iso-flop: training FLOPs by the cost ledger are held" in output
    document = json.loads(shown(design, "--dry-run", "--gpu", "h100", "--json"))
    assert [point["settings"]["hidden_size"] for point in document["points"]] == [32, 64]
    assert document["totals"]["hours"] > 0
    assert document["costs"] == "modelled"
    assert {path.name for path in tmp_path.iterdir()} == {"base.toml", "design.toml"}


def test_a_folder_of_experiments_is_written_for_a_cluster(tmp_path: Path) -> None:
    design = write_design(tmp_path, "[axes]\nseeds = [0, 1, 2]")
    shown(design, "--write", tmp_path / "out")
    files = sorted((tmp_path / "out" / "experiments").iterdir())
    assert {load_experiment(file).train.seed for file in files} == {0, 1, 2}
    result = CliRunner().invoke(
        moescale.app,
        ["slurm", "submit", str(tmp_path / "out" / "experiments"), "--dry-run",
         "--runs-dir", str(tmp_path / "out" / "runs")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "#SBATCH --array=0-2" in result.stdout
    plan = plan_training(
        [tmp_path / "out" / "experiments"],
        [],
        ProfilesFile(),
        SubmissionPaths(runs_dir=tmp_path / "out" / "runs", work_dir=tmp_path, code_tree="0"),
    )
    assert [task.run_dir for task in plan.tasks] == [
        str(tmp_path / "out" / "runs" / file.stem) for file in files
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "--write", "x"], "--run, --write and --dry-run: choose one"),
        (["--dir", "x"], "--dir says where --run runs"),
        (["--gpus", "2"], "--gpus 2 needs --gpu"),
        (["--gpu", "h100", "--measured", "x"], "--measured and --gpu both say the cost"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(BenchmarkError, match=message):
        shown(write_design(tmp_path, ""), *words)


@pytest.mark.engine
def test_a_sweep_trains_and_bears_a_failure(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(12):
        lines = (f"line {line} of text {number}" for line in range(60))
        (tmp_path / "texts" / f"{number}.txt").write_text("\n".join(lines))
    build(tmp_path / "store", tmp_path / "texts", held_out_fraction=0.5)
    text = (
        "[axes]\ntrain.steps = 2\ntrain.eval_sequences = 2\n"
        f"data.store = ['{tmp_path}/store', '{tmp_path}/none']"
    )
    design = write_design(tmp_path, text)
    words = ("sweep", design, "--run", "--jobs", "2", "--dir", tmp_path / "sweep", "--json")
    code, out, err = command(*words)
    assert code == 1, err
    assert "1 of 2 runs failed" in err
    assert "none: no manifest.json" in err
    finished, failed = json.loads(out)["results"]
    assert (finished["status"], failed["status"]) == ("finished", "failed")
    assert finished["tokens"] == 2 * 4 * 32
    assert finished["tokens_per_s"] > 0
    assert points_from([tmp_path / "sweep"]).columns["loss"].tolist() == [finished["loss"]]
