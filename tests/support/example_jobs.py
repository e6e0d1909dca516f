"""Jobs for tests: one small, one large in containers, one array in another one."""

from pathlib import Path
from typing import Any

from moe.config.slurm import SlurmConfig
from slurm.job.cluster_profile import ClusterProfile, ContainerConfig, EnvironmentConfig
from slurm.job.job import Job


def make_job(**changes: Any) -> Job:
    """Return a plain CPU job on two nodes."""
    values: dict[str, Any] = {
        "name": "tiny",
        "job_dir": Path("/shared/runs/slurm/tiny-0123abcd"),
        "runs_dir": Path("/shared/runs"),
        "code_dir": Path("/shared/runs/slurm/code/0123456789ab"),
        "work_dir": Path("/shared/work"),
        "python": "/shared/venv/bin/python",
        "config": SlurmConfig(nodes=2, cpus_per_process=4, time="00:30:00"),
        "commands": (("train", "a.toml", "--run-dir", "/shared/runs/tiny", "--resume"),),
        "node_counts": (2,),
    }
    return Job(**(values | changes))


def large_job() -> Job:
    """Return 32 nodes of 8 H100 with pyxis, InfiniBand and a secret."""
    return make_job(
        name="moe-256",
        config=SlurmConfig(
            partition="h100",
            account="research",
            nodes=32,
            min_nodes=16,
            gpus_per_node=8,
            gpu_type="h100",
            cpus_per_process=12,
            memory="0",
            time="1-00:00:00",
            exclusive=True,
            checkpoint_lead_s=300,
            exclude=("node007",),
        ),
        node_counts=(16, 32),
        profile=ClusterProfile(
            container=ContainerConfig(
                runtime="pyxis",
                image="/images/moescale-26.03.sqsh",
                mounts=("/data", "/scratch/cache:/cache"),
                args=("--no-container-mount-home",),
            ),
            network="infiniband",
            interface="bond0",
            secrets=("WANDB_API_KEY",),
            env={"HF_HOME": "/cache/hf"},
            health_check="nvidia-smi --query-gpu=ecc.errors.uncorrected.volatile.total"
            " --format=csv,noheader | grep -qvx 0 && exit 1 || exit 0",
            srun_args=("--mpi=pmix",),
        ),
        has_secrets=True,
        mounts=("/data/store",),
    )


def array_job() -> Job:
    """Return an array with awkward names, torchrun, conda and apptainer."""
    return make_job(
        name="a 'sweep' of \"$HOME\" \\ `x` #1 %j",
        job_dir=Path("/shared/runs dir/slurm/it's $5 100%"),
        runs_dir=Path("/shared/runs dir"),
        config=SlurmConfig(
            launch="torchrun",
            gpus_per_node=4,
            gpu_type="a100",
            cpus_per_process=8,
            max_parallel=16,
            continue_by="submit",
            comment='50% of "all" we have',
            constraint="a100&nvlink",
            extra=("--mail-type=FAIL", "--spread-job"),
        ),
        node_counts=(1,),
        commands=tuple(("train", f"run {i}.toml", "--resume") for i in range(20)),
        is_array=True,
        profile=ClusterProfile(
            container=ContainerConfig(runtime="apptainer", image="/images/moe scale.sif"),
            environment=EnvironmentConfig(kind="conda", path="/opt/my env"),
            modules=("cuda/12.8", "gcc"),
            setup=("ulimit -n 65536",),
            gpu_request="gres",
            network="efa",
        ),
    )


def shards_job() -> Job:
    """Return a command's array in a uv project on plain Ethernet, on whole nodes."""
    build = ("data", "build", "my docs", "-o", "/shared/store", "--shard")
    return make_job(
        name="data-build",
        config=SlurmConfig(
            partition="cpu",
            qos="low",
            reservation="maintenance",
            dependency="afterok:1234",
            memory="480G",
            exclusive=True,
            gpus_per_node=4,
            processes_per_node=1,
            continue_by="none",
        ),
        node_counts=(1,),
        commands=tuple((*build, f"{task}/8") for task in range(1, 9)),
        is_array=True,
        profile=ClusterProfile(
            environment=EnvironmentConfig(kind="uv", path="/shared/moescale"),
            gpu_request="none",
            network="ethernet",
            interface="eno1",
        ),
    )


def forms() -> dict[str, Job]:
    """Return every form whose script is kept in golden/."""
    jobs = {"small": make_job(), "large": large_job(), "array": array_job()}
    return jobs | {"shards": shards_job()}
