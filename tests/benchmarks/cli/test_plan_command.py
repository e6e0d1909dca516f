"""`moe plan` as a user runs it: the contract's keys, one line for every mistake, files written."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.trained_runs import command

MIXTRAL = ("plan", "mixtral-8x7b", "--gpus", "64", "--gpu", "h100")
ENTRY = {
    "layout", "fits", "memory_bytes", "memory", "step_time_s", "tokens_per_s_per_gpu",
    "tflops_per_gpu", "energy_joules_per_token", "limits", "terms",
}  # fmt: skip


def test_json_has_the_keys_of_the_contract() -> None:
    code, out, err = command(*MIXTRAL, "--top", "3", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert {"layouts", "model"} <= set(document)
    assert len(document["layouts"]) == 3
    for entry in document["layouts"]:
        assert set(entry) >= ENTRY
        assert entry["fits"] is True
        assert sum(entry["memory"].values()) == entry["memory_bytes"]
        assert 0 < entry["memory_allocated_bytes"] < entry["memory_bytes"]
        assert 0 <= entry["memory_stage"] < entry["layout"]["pp"]
        assert sum(entry["terms"].values()) == pytest.approx(entry["step_time_s"])
    seconds = [entry["step_time_s"] for entry in document["layouts"]]
    assert seconds == sorted(seconds)
    assert document["search"]["candidates"] > document["search"]["predicted"] > 0
    assert document["model"]["error"]["interval"][0] < 1 < document["model"]["error"]["interval"][1]
    code, out, _ = command(*MIXTRAL, "--json", "--layout", document["layouts"][1]["text"])
    (alone,) = json.loads(out)["layouts"]
    assert (code, alone["step_time_s"]) == (0, seconds[1])


def test_tables_say_what_was_looked_at_and_why_one_lost() -> None:
    code, out, _ = command(*MIXTRAL, "--top", "2", "--target-tokens", "1e12", "--price", "2",
                           "--currency", "EUR")  # fmt: skip
    assert code == 0
    for text in ("legal ways looked at", "1 ◆", "expert matmul", "wall time", "EUR", "failures:"):
        assert text in out
    code, out, _ = command(*MIXTRAL, "--why", "tp=4,pp=2", "--target-tokens", "1e12")
    assert code == 0
    assert "more than the best" in out
    assert "wall time" in out
    code, out, _ = command(*MIXTRAL, "--why", "tp=3", "--json")
    assert json.loads(out)["why"]["reason"] == "illegal"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan",), "name a model or an experiment, --gpus and --gpu; or --validate FILE"),
        ((*MIXTRAL[:-1], "h101"), "gpu 'h101': no such card; choose a100, b200"),
        (("plan", "mixtrl", *MIXTRAL[2:]), "did you mean mixtral"),
        (("plan", "missing.toml", *MIXTRAL[2:]), "missing.toml: No such file"),
        ((*MIXTRAL, "--layout", "tp=3"), "tp*cp*pp = 3*1*1 = 3 does not divide 64 ranks"),
        ((*MIXTRAL, "--layout", "tp=3"), "more: --why names all)"),
        (("plan", "qwen3-30b-a3b", "--gpus", "1", "--gpu", "h100"), "fits in memory of H100: take"),
        ((*MIXTRAL, "--layout", "own"), "is no experiment"),
        ((*MIXTRAL, "--why", "tp"), "'tp' is none of"),
        ((*MIXTRAL, "--seq-len", "99999999"), "longer than the model's max_seq_len"),
        ((*MIXTRAL, "--set", "train.steps=1"), "mixtral-8x7b has no [train]"),
        ((*MIXTRAL, "--sweep-gpus", "8"), "give FEWEST:MOST"),
        ((*MIXTRAL, "--target-tokens", "1e12", "--start", "soon"), "give a date"),
        ((*MIXTRAL, "--layout", "tp=2,pp=2,ep=8", "--write"), "is no experiment"),
        ((*MIXTRAL, "--layout", "tp=2,pp=2,ep=8", "--budget-money", "1"), "no price is known"),
        ((*MIXTRAL, "--layout", "tp=2,pp=2,ep=8", "--trace", "/nowhere/t.json"), "No such file"),
        ((*MIXTRAL, "--layout", "tp=2,pp=2,ep=8", "--html", "/nowhere/p.html"), "No such file"),
        ((*MIXTRAL, "--pue", "0.5", "--layout", "pp=2,ep=8"), "energy.pue = 0.5"),
        (("plan", "--validate", "/nowhere.csv"), "/nowhere.csv: No such file"),
        ((*MIXTRAL, "--layout", "ep=8", "--why", "tp=2"), "--why with --layout: a layout is"),
        ((*MIXTRAL, "--why", "tp=2", "--as", "bridge"), "--why with --as"),
        (
            ("plan", "tiny", "--validate", "f.csv"),
            "reads its file alone, and a model or experiment is",
        ),
        (("plan", "--validate", "f.csv", "--top", "2"), "and --top is given: remove it"),
        ((*MIXTRAL, "--price", "2"), "--price is of a run: say --target-tokens or a --budget-"),
        ((*MIXTRAL, "--start", "2027-01-01"), "--start is of a run"),
        ((*MIXTRAL, "--gpu-mtbf-hours", "9"), "--gpu-mtbf-hours is of a run"),
        ((*MIXTRAL, "--html", "a/../x", "--trace", "./x"), "--trace x: --html is the same file"),
        (("plan", "./a.toml", *MIXTRAL[2:], "--trace", "a.toml"), "--trace a.toml: a model or ex"),
        ((*MIXTRAL, "--layout", "ep=8,mbs=4", "--micro-batch-size", "2"), "mbs=4, but --micro-b"),
        ((*MIXTRAL, "--layout", "tp=1", "--as", "megatron"), "--as: this layout does not fit"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("moe: ")
    assert message in line


def test_a_card_without_collectives_is_planned_for_alone(tmp_path: Path) -> None:
    shipped = (ROOT / "parallel" / "hardware" / "cards" / "cpu.toml").read_text(encoding="utf-8")
    before, rest = shipped.split("[links.collectives.gather]")
    card = tmp_path / "mine.toml"
    kept = before.replace("\ncollectives =", "\n# collectives =")
    card.write_text(f"{kept}[power]{rest.split('[power]', 1)[1]}", encoding="utf-8")
    code, out, err = command("plan", "qwen3-30b-a3b", "--gpus", "8", "--gpu", card)
    assert (code, out) == (2, "")
    assert "CPU's file has no [links.collectives], so" in err and err.count("\n") == 1


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    of_tiny = ("plan", "tiny", "--gpus", "1", "--gpu", "h100", "--seq-len", "128")
    for option in ("--trace", "--html"):
        code, out, err = command(*of_tiny, "--global-batch-size", "8", option, pipe)
        assert (code, out) == (2, "")
        assert err == f"moe: {option} {pipe}: not a regular file\n"
        assert pipe.is_fifo()


def test_a_plan_is_written_traced_and_exported(tmp_path: Path) -> None:
    path, trace = tmp_path / "a.toml", tmp_path / "t.json"
    path.write_text(
        '[model]\npreset = "llama3-8b"\n[train]\nsteps = 1\nseq_len = 4096\n'
        'global_batch_size = 64\n[precision]\nkernels = "te"\ndtype = "bf16"\n'
    )
    gpus = ("--gpus", "16", "--gpu", "h200")
    code, out, err = command(
        "plan", path, *gpus, "--layout", "pp=4,vpp=2,tp=2", "--write", "--trace", trace,
        "--as", "megatron",
    )  # fmt: skip
    assert code == 0, err
    assert err == f"moe: {path}: [parallel] is written\n"
    assert "--pipeline-model-parallel-size 4" in out
    assert "[parallel]\ntp = 2\npp = 4\nvpp = 2\n" in path.read_text()
    events = json.loads(trace.read_text())["traceEvents"]
    passes = [event for event in events if event.get("args", {}).get("kind")]
    # 64 sequences over dp = 2, each forward and backward through 8 chunks.
    assert len(passes) == 32 * 2 * 8
    code, out, _ = command("plan", path, *gpus, "--layout", "own", "--as", "bridge")
    assert code == 0
    assert "cfg.model.pipeline_model_parallel_size = 4" in out
    ast.parse(out)
    code, _, err = command("plan", path, *gpus, "--write", "--seq-len", "2048")
    assert code == 2
    assert "--write with --seq-len: the file says otherwise" in err


def test_planning_needs_no_torch() -> None:
    """A login node has none: its import is made to fail."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['moe', 'plan', 'tiny', '--gpus', '1',"
        " '--gpu', 'cpu', '--seq-len', '128', '--global-batch-size', '8', '--json'];"
        " import moescale; moescale.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layouts"][0]["fits"] is True
