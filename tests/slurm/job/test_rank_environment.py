"""What each rank of 2 to 1,000 nodes finds in its environment, however it is launched."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe.config.slurm import SlurmConfig
from slurm.errors import JobError
from slurm.job.batch_script import MAX_WORD_BYTES, render
from slurm.job.cluster_profile import ClusterProfile, ContainerConfig
from slurm.job.job import Job
from tests.support.example_jobs import make_job
from tests.support.hostlist import expand
from tests.support.started_ranks import Start, start

GPUS = 8
LEAST_ARG_MAX = 131_072
"""Bytes of arguments and environment together that every Linux takes (32 pages)."""


def gpu_job(folder: Path, nodes: int, **changes: Any) -> Job:
    """A job of 8 GPUs a node whose files lie in a folder."""
    (folder / "runs").mkdir(exist_ok=True)
    config = SlurmConfig(gpus_per_node=GPUS, nodes=nodes, launch=changes.pop("launch", "srun"))
    values = {"config": config, "node_counts": (nodes,), "python": "python", **changes}
    job = make_job(**values)
    return dataclasses.replace(
        job, job_dir=folder / "runs/slurm/x", runs_dir=folder / "runs", code_dir=folder
    )


def hostlist(nodes: int, stride: int) -> str:
    """Nodes with numbers of four digits; SLURM shortens neighbours alone."""
    numbers = [1 + stride * index for index in range(nodes)]
    text = (
        f"{numbers[0]:04}-{numbers[-1]:04}"
        if stride == 1
        else ",".join(map("{:04}".format, numbers))
    )
    return f"gpu-a[{text}]"


def ends_of_nodes(nodes: int, launch: str) -> list[int]:
    """Tasks on the first, second and last node: with srun, each node's first and last."""
    some = sorted({0, 1, nodes - 1})
    if launch == "torchrun":
        return some
    return [node * GPUS + local for node in some for local in (0, GPUS - 1)]


def option(words: list[str], name: str) -> str:
    """The value of an option that is given once."""
    (value,) = (word.partition("=")[2] for word in words if word.startswith(f"--{name}="))
    return value


def assert_one_group(seen: Start, hosts: list[str], launch: str) -> None:
    """Every rank knows its place, one meeting point, its cores, and sees all GPUs of its node."""
    nodes = len(hosts)
    assert len(seen.ranks) == 2 * len({0, 1, nodes - 1})
    for rank, env in seen.ranks.items():
        assert env["RANK"] == str(rank)
        assert env["LOCAL_RANK"] == str(rank % GPUS)
        assert env["SLURM_NODEID"] == str(rank // GPUS)
        assert env["WORLD_SIZE"] == str(nodes * GPUS)
        assert env["MASTER_ADDR"] == hosts[0]
        assert env["OMP_NUM_THREADS"] == "8"
        assert "CUDA_DEVICE_MAX_CONNECTIONS" not in env, "the engine sets it by the layout"
        assert "CUDA_VISIBLE_DEVICES" not in env
        assert env["TORCH_FR_DUMP_TEMP_FILE"].startswith(env["MOESCALE_ATTEMPT"])
    (port,) = {env["MASTER_PORT"] for env in seen.ranks.values()}
    assert 1024 <= int(port) < 32_768, "where Linux gives no port to anybody by itself"
    tasks = 1 if launch == "torchrun" else GPUS
    assert option(seen.srun, "nodes") == str(nodes)
    assert option(seen.srun, "ntasks-per-node") == str(tasks)
    assert option(seen.srun, "ntasks") == str(nodes * tasks)
    assert option(seen.srun, "cpus-per-task") == str(8 * GPUS // tasks)
    assert option(seen.srun, "gpu-bind") == "none"
    for node, words in seen.torchrun.items():
        assert option(words, "node-rank") == str(node)
        assert option(words, "nnodes") == str(nodes)
        assert option(words, "nproc-per-node") == str(GPUS)
        assert option(words, "master-addr") == hosts[0]
        assert option(words, "master-port") == port


@settings(max_examples=8, deadline=None)
@given(
    nodes=st.one_of(st.just(1000), st.integers(2, 1000)),
    stride=st.sampled_from([1, 2, 3]),
    launch=st.sampled_from(["srun", "torchrun"]),
)
def test_ranks_of_any_number_of_nodes_are_one_group(nodes: int, stride: int, launch: str) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        listed = hostlist(nodes, stride)
        job = gpu_job(folder, nodes, launch=launch)
        seen = start(folder, job, listed, ends_of_nodes(nodes, launch))
        assert_one_group(seen, expand(listed), launch)
        for env in seen.ranks.values():
            size = sum(len(f"{key}={value}") + 1 for key, value in env.items())
            assert size + sum(len(word) + 1 for word in seen.srun) < LEAST_ARG_MAX


@pytest.mark.parametrize("launch", ["srun", "torchrun"])
def test_each_start_meets_at_a_port_of_its_own(tmp_path: Path, launch: str) -> None:
    """The socket of a start that was killed is in nobody's way; the address stays."""
    job = gpu_job(tmp_path, 3, launch=launch)
    ports = []
    for restart in range(3):
        seen = start(
            tmp_path, job, "n[1-3]", ends_of_nodes(3, launch), SLURM_RESTART_COUNT=str(restart)
        )
        assert_one_group(seen, ["n1", "n2", "n3"], launch)
        ports.append(seen.ranks[0]["MASTER_PORT"])
    assert len(set(ports)) == 3


def test_fewer_nodes_than_planned_are_one_group_too(tmp_path: Path) -> None:
    """`min_nodes`: granted 3, of which the layout uses 2."""
    job = dataclasses.replace(gpu_job(tmp_path, 4), node_counts=(1, 2, 4))
    seen = start(tmp_path, job, "n[1-3]", ends_of_nodes(2, "srun"))
    assert_one_group(seen, ["n1", "n2"], "srun")


@pytest.mark.parametrize("launch", ["srun", "torchrun"])
def test_image_s_own_variables_do_not_go_before_the_job_s(tmp_path: Path, launch: str) -> None:
    """Pyxis and enroot keep what an image sets, whatever the batch shell exports."""
    profile = ClusterProfile(
        container=ContainerConfig(runtime="pyxis", image="/images/a.sqsh"),
        env={"NCCL_DEBUG": "INFO", "CACHE": 'it\'s $HOME, "quoted"'},
        network="infiniband",
        setup=("export NCCL_IB_TIMEOUT=23",),
    )
    image = (
        "export NCCL_DEBUG=VERSION OMP_NUM_THREADS=1 NCCL_IB_TIMEOUT=1 CACHE=/image OF_IMAGE=1"
        " MASTER_PORT=1 PATH=$SEEN/bin:/usr/bin:/bin"
    )
    job = gpu_job(tmp_path, 2, launch=launch, profile=profile)
    seen = start(tmp_path, job, "n[1-2]", ends_of_nodes(2, launch), image=image)
    assert_one_group(seen, ["n1", "n2"], launch)
    for env in seen.ranks.values():
        assert env["NCCL_DEBUG"] == "INFO"
        assert env["CACHE"] == 'it\'s $HOME, "quoted"'
        assert env["NCCL_IB_TIMEOUT"] == "23", "setup of the profile goes before its keys"
        assert env["OF_IMAGE"] == "1", "what the job does not set is the image's"


def test_jobs_that_may_share_a_node_meet_at_different_ports(tmp_path: Path) -> None:
    """Tasks of one array have consecutive ids and often one node."""
    job = gpu_job(tmp_path, 1)
    seen = [
        start(tmp_path, job, "n1", [0], SLURM_JOB_ID=str(number)).ranks[0]["MASTER_PORT"]
        for number in (67_108_862, 67_108_863)
    ]
    assert len(set(seen)) == 2


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mounts": tuple(f"/data/{i:03000}" for i in range(40))}, "--container-mounts"),
        ({"commands": (("bench", "x" * (MAX_WORD_BYTES + 1)),)}, "the command"),
        ({"commands": (("bench", *("x" * 1000 for _ in range(200))),)}, "the command"),
    ],
)
def test_what_linux_hands_to_no_program_is_refused(changes: dict[str, Any], complaint: str) -> None:
    """With `Argument list too long` srun would fail on the first node, after hours in the queue."""
    container = ContainerConfig(runtime="pyxis", image="/images/a.sqsh")
    with pytest.raises(JobError, match=f"{complaint}.* bytes"):
        render(make_job(profile=ClusterProfile(container=container), **changes))


def test_variables_that_linux_hands_to_no_program_are_refused() -> None:
    env = {f"VARIABLE_{i}": "x" * 1000 for i in range(200)}
    with pytest.raises(JobError, match="env of the profile.* bytes"):
        render(make_job(profile=ClusterProfile(env=env)))
