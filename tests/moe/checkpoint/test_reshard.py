"""`moe convert reshard`: files cut for another layout hold the same state, and are resumed."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from moe.convert.hugging_face import from_hub
from tests.support.checkpoint_content import checkpoint_content
from tests.support.fault_injection import rows, run
from tests.support.hf_reference_models import make_model
from tests.support.layout_equivalence import make
from tests.support.trained_runs import command

TRAIN = {"steps": 6, "warmup_steps": 1, "checkpoint_interval": 3, "global_batch_size": 8}


@pytest.fixture(scope="module")
def source(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("reshard") / "run"
    run(2, make(store, {"ep": 2}, train=TRAIN), run_dir)
    (run_dir / "hub").mkdir()  # as of a run that began with a model of Hugging Face
    (run_dir / "hub/generation_config.json").write_text("{}")
    return run_dir


@pytest.mark.parametrize(
    ("ranks", "layout"),
    [(1, {}), (4, {"tp": 2, "pp": 2}), (4, {"ep": 4}), (4, {"pp": 2, "vpp": 2, "ep": 2}),
     (4, {"tp": 2, "ep": 2, "etp": 2})],
)  # fmt: skip
def test_resharded_files_hold_the_same_state(
    ranks: int, layout: dict[str, int], source: Path, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    new = make(store, layout, train=TRAIN)
    sets = [x for key, value in layout.items() for x in ("--set", f"parallel.{key}={value}")]
    code, said, fault = command(
        "convert", "reshard", str(source), "-o", str(out), "--ranks", str(ranks), "--step", "3",
        "--json", "--set", 'parallel.device="cpu"', *sets,
    )  # fmt: skip
    assert code == 0, fault
    assert json.loads(said)["files"] == ranks
    name = "checkpoints/step-00000003"
    mine, theirs = checkpoint_content(source / name), checkpoint_content(out / name)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    assert len(list((out / name).glob("rank-*.safetensors"))) == ranks
    assert (out / "hub/generation_config.json").read_text() == "{}"
    if "vpp" in layout:
        # Any layout resumes from any files: test_training_state.py.
        run(4, new, out, resume=True)
        losses = [row["loss"] for row in rows(out)]
        wanted = [row["loss"] for row in rows(source)][3:]
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)


def test_a_converted_model_is_resharded_with_what_came_with_it(tmp_path: Path) -> None:
    make_model("qwen3", tmp_path / "hub")
    from_hub(tmp_path / "hub", tmp_path / "ours")
    arguments = ("-o", str(tmp_path / "out"), "--set", 'parallel.device="cpu"')
    code, _, said = command("convert", "reshard", str(tmp_path / "ours"), *arguments)
    assert code == 0, said
    assert (tmp_path / "out" / "hub" / "config.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"hub", "ours", "out"}


def test_bad_layouts_are_refused_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, said = command("convert", "reshard", str(source), "-o", str(out), "--ranks", "2",
                            "--set", "parallel.tp=3")  # fmt: skip
    assert code == 2
    assert "tp*cp*pp = 3*1*1 = 3 does not divide 2 ranks" in said
    assert not out.exists()
    code, _, said = command("convert", "reshard", str(source), "-o", str(source))
    assert code == 2
    assert "exists: choose another --out" in said


def test_layouts_that_the_experiment_forbids_are_refused_and_nothing_is_written(
    source: Path, tmp_path: Path
) -> None:
    run_dir, out = Path(shutil.copytree(source, tmp_path / "run")), tmp_path / "out"
    file = run_dir / "experiment.toml"
    values = tomllib.loads(file.read_text())
    values["precision"] |= {"kernels": "te", "dtype": "bf16", "fp8": "current"}
    values["precision"] |= {"fp8_parameters": True}
    values["model"]["qk_norm"] = "head"
    file.write_text(tomli_w.dumps(values))
    code, _, said = command("convert", "reshard", str(run_dir), "-o", str(out),
                            "--set", "parallel.distributed_optimizer=false")  # fmt: skip
    assert code == 2
    assert f"{file}: experiment: precision.fp8_parameters = true needs parallel.dist" in said
    assert not out.exists()
