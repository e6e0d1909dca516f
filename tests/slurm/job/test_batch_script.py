"""The batch script: its text, its shell, and what it costs to make."""

import dataclasses
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe.config.slurm import SlurmConfig
from slurm.cluster.submission_folder import parse_array
from slurm.errors import JobError
from slurm.job import batch_script
from slurm.job.batch_script import array_text, render, render_commands
from slurm.job.cluster_profile import ClusterProfile, ContainerConfig, EnvironmentConfig
from tests.support.example_jobs import array_job, forms, large_job, make_job
from tests.support.paths import ROOT

GOLDEN = Path(__file__).with_name("golden")
BODY = "".join((ROOT / "slurm" / "job" / name).read_text() for name in batch_script.BODY)


@pytest.mark.parametrize("name", forms())
def test_text_is_the_golden_one(name: str) -> None:
    """After a wanted change: MOESCALE_WRITE_GOLDEN=1 pytest, and read the difference."""
    text = render(forms()[name])
    head = text.removesuffix(BODY)
    path = GOLDEN / f"{name}.sh"
    if "MOESCALE_WRITE_GOLDEN" in os.environ:
        path.write_text(head)
    assert text.endswith(BODY)
    assert head == path.read_text()


@pytest.mark.parametrize("name", forms())
def test_text_depends_on_the_job_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = render(forms()[name])
    monkeypatch.setenv("HOME", "/elsewhere")
    monkeypatch.chdir("/")
    assert render(forms()[name]) == first


@pytest.mark.parametrize("name", forms())
def test_text_is_sound_bash(name: str, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(render(forms()[name]))
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.needs("shellcheck")
@pytest.mark.parametrize("name", forms())
def test_shellcheck_finds_nothing(name: str, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(render(forms()[name]))
    command = ["shellcheck", str(script)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""


def test_shell_reads_back_what_was_meant(tmp_path: Path) -> None:
    """Quotes, spaces, `$` and backquotes reach the shell's variables as they are."""
    job = array_job()
    head = render(job).removesuffix(BODY)
    script = f'{head}\nprintf "%s\\n" "$job_dir" "$activate" "${{runtime[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == str(job.job_dir)
    assert shlex.split(lines[1])[-1] == "/opt/my env"
    assert lines[-1] == "/images/moe scale.sif"


def test_header_is_quoted_as_sbatch_reads_it() -> None:
    """Checked against the real sbatch in real_cluster/; `%` is a pattern in file names alone."""
    lines = render(array_job()).splitlines()
    assert '#SBATCH --job-name="a \'sweep\' of \\"$HOME\\" \\\\ `x` #1 %j"' in lines
    assert '#SBATCH --output="/shared/runs dir/slurm/it\'s $5 100%%/logs/%A_%a.log"' in lines
    assert '#SBATCH --comment="50% of \\"all\\" we have"' in lines


def test_secrets_are_not_in_the_text() -> None:
    text = render(large_job())
    assert "WANDB_API_KEY" not in text
    assert "secrets=/shared/runs/slurm/tiny-0123abcd/secrets" in text
    assert not re.search(r"^\s*set -[a-z]*x", text, re.MULTILINE)


def test_array_script_does_not_grow_with_its_tasks() -> None:
    def text_of(count: int) -> str:
        commands = tuple(("train", f"{i}.toml") for i in range(count))
        return render(make_job(commands=commands, is_array=True))

    assert len(text_of(1000)) - len(text_of(10)) == len("999") - len("9")


def test_commands_of_an_array_are_read_back_by_line(tmp_path: Path) -> None:
    awkward = ("train", 'it\'s "a" $b.toml', "", "--set", "x=\\n")
    job = make_job(commands=(("first",), awkward), is_array=True)
    (tmp_path / "commands").write_text(render_commands(job))
    reader = next(line for line in BODY.splitlines() if "mapfile -t -s" in line)
    show = 'eval "command=(${line[0]})"; printf "%s|" "${command[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{reader}\n{show}"],
        env={"job_dir": str(tmp_path), "task": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "|".join(awkward) + "|"


@given(st.sets(st.integers(min_value=0, max_value=5000), min_size=1))
def test_array_text_names_exactly_these(indices: set[int]) -> None:
    assert parse_array(array_text(indices)) == indices


def test_array_text_is_short() -> None:
    assert array_text([7, 0, 1, 2, 3]) == "0-3,7"
    assert array_text(range(1000)) == "0-999"


@pytest.mark.parametrize(
    ("environment", "line", "python"),
    [
        ({"kind": "current"}, "", "/shared/venv/bin/python"),
        ({"kind": "path"}, "", "python3"),
        ({"kind": "venv", "path": "/a b"}, ". '/a b'/bin/activate", "python"),
        ({"kind": "uv", "path": "/p"}, ". /p/.venv/bin/activate", "python"),
    ],
)
def test_environments(environment: dict[str, str], line: str, python: str) -> None:
    job = make_job(
        profile=ClusterProfile(environment=EnvironmentConfig.model_validate(environment))
    )
    lines = render(job).splitlines()
    assert f"activate={shlex.quote(line)}" in lines
    assert f"python={python}" in lines


def test_gpus_are_asked_for_as_the_cluster_wants() -> None:
    config = SlurmConfig(gpus_per_node=8, gpu_type="h100")
    wanted = {
        "gpus-per-node": ["--gpus-per-node=h100:8"],
        "gres": ["--gres=gpu:h100:8"],
        "none": [],
    }
    for request, options in wanted.items():
        profile = ClusterProfile.model_validate({"gpu_request": request})
        text = render(make_job(config=config, profile=profile, node_counts=(1,)))
        assert re.findall(r"--g(?:pus|res)\S*(?==)\S*", text.split("set -uo")[0]) == options


def test_job_with_gpus_has_what_they_need() -> None:
    """Cores, ranks in the order of sockets, NCCL's warnings; all of it may be set otherwise."""
    config = SlurmConfig(gpus_per_node=8)
    lines = render(make_job(config=config, node_counts=(1,))).splitlines()
    assert "#SBATCH --cpus-per-task=8" in lines
    (arguments,) = (line for line in lines if line.startswith("srun_args="))
    for word in ("--cpus-per-task=8", "--gpu-bind=none", "--distribution=block:block"):
        assert word in arguments
    exports = {"NCCL_DEBUG=WARN", "OMP_NUM_THREADS=8"}
    assert {f"export {one}" for one in exports | {"SRUN_CPUS_PER_TASK=8"}} <= set(lines)
    profile = ClusterProfile(env={"NCCL_DEBUG": "INFO"}, srun_args=("--distribution=*:cyclic",))
    text = render(make_job(config=config, profile=profile, node_counts=(1,)))
    assert "export NCCL_DEBUG=INFO" in text
    assert "NCCL_DEBUG=WARN" not in text
    assert text.index("--distribution=block:block") < text.index("--distribution=*:cyclic")


def test_job_without_gpus_is_not_told_of_them() -> None:
    assert "CUDA" not in render(make_job()).removesuffix(BODY)


def test_elastic_job_wants_as_many_nodes_as_there_are() -> None:
    """With --ntasks-per-node=1, `--nodes=1-4` gave one node of four idle ones (SLURM 22.05)."""
    config = SlurmConfig(nodes=4, min_nodes=1, processes_per_node=2, cpus_per_process=3)
    text = render(make_job(config=config, node_counts=(1, 2, 4))).split("set -uo")[0]
    assert "#SBATCH --nodes=1-4\n#SBATCH --mincpus=6\n#SBATCH --cpus-per-task=3\n" in text
    assert "ntasks" not in text


def test_torchrun_is_one_task_with_all_cores_of_a_node() -> None:
    config = SlurmConfig(launch="torchrun", processes_per_node=4, cpus_per_process=8)
    text = render(make_job(config=config, node_counts=(1,)))
    assert "#SBATCH --ntasks-per-node=1\n#SBATCH --cpus-per-task=32\n" in text
    assert "srun_args=(--cpus-per-task=32)" in text  # srun does not inherit it since 22.05
    assert "export OMP_NUM_THREADS=8" in text


def test_container_sees_runs_code_and_data_once() -> None:
    job = make_job(mounts=("/shared/runs/inside", "/data/store"))
    assert job.mounted_folders == ("/data/store", "/shared/runs", "/shared/work")
    assert dataclasses.replace(job, work_dir=Path("/shared")).mounted_folders[0] == "/shared"


def test_contradictions_are_refused() -> None:
    with pytest.raises(JobError, match="gpu_type"):
        make_job(config=SlurmConfig(gpu_type="h100"))
    with pytest.raises(JobError, match="control characters"):
        make_job(name="two\nlines")
    contained = ClusterProfile(container=ContainerConfig(runtime="pyxis", image="/a.sqsh"))
    with pytest.raises(JobError, match="cannot be mounted"):
        make_job(profile=contained, work_dir=Path("/a:b"))


def test_argument_of_two_lines_is_refused_in_an_array() -> None:
    commands = (("data", "build", "two\nlines"),)
    with pytest.raises(JobError, match="no argument may hold two"):
        make_job(commands=commands, is_array=True)
    assert "two\nlines" in render(make_job(commands=commands))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"job_dir": Path("/back\\slash/slurm/x")}, "a backslash"),
        ({"work_dir": Path("/two\nlines")}, "a control character"),
        ({"runs_dir": Path("/latin-\udce9")}, "no UTF-8"),
    ],
)
def test_folder_that_slurm_cannot_use_is_refused(changes: dict[str, Path], complaint: str) -> None:
    """With a backslash in the log's path SLURM fails the job, and writes no log of it."""
    with pytest.raises(JobError, match=complaint):
        make_job(**changes)
    make_job(work_dir=Path("/back\\slash/it's $5 100%"))
