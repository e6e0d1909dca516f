"""The batch script: a pure function of the job, identical for identical input."""

import shlex
from collections.abc import Iterable
from importlib.resources import files

from slurm.errors import JobError
from slurm.job.job import Job

NETWORK_VARIABLES: dict[str, dict[str, str]] = {
    "auto": {},
    # Retries that outlast a link flap: 4.096 us * 2^22 = 17 s, 13 times (NCCL's user guide).
    "infiniband": {"NCCL_IB_TIMEOUT": "22", "NCCL_IB_RETRY_CNT": "13"},
    # aws-ofi-nccl's recommendations for P4 and P5 instances.
    "efa": {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_FORK_SAFE": "1"},
    "ethernet": {"NCCL_IB_DISABLE": "1"},
}
"""Variables of each `network`."""
GPU_VARIABLES = {
    "NCCL_DEBUG": "WARN",
    "TORCH_FR_BUFFER_SIZE": "2000",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
}
"""Variables of jobs with GPUs; `env` of the profile goes before."""
MAX_WORD_BYTES = 100_000
"""Of one argument or variable of a program. Linux takes 131,071 (MAX_ARG_STRLEN); quotes of the
shell come on top."""
BODY = ("rank.sh", "preparation.sh", "batch.sh")
"""Files that are the same in every script, in this order."""


def render(job: Job) -> str:
    """Return the text that sbatch is given.

    Raises:
        JobError: No program could be handed something of it.
    """
    _check_lengths(job)
    body = "".join(files("slurm.job").joinpath(name).read_text(encoding="utf-8") for name in BODY)
    parts = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in _options(job)),
        "",
        "# Written by moescale; identical for identical input.",
        "# Sourced files exist only on the cluster, quoted text holds `$` and commas, traps call.",
        "# shellcheck disable=SC1090,SC1091,SC2016,SC2054,SC2317",
        "set -uo pipefail",
        *_settings(job),
        *_exports(job),
        *_prepare(job),
        "",
    ]
    return "\n".join(parts) + "\n" + body


def render_commands(job: Job) -> str:
    """Return the file `commands`: line N + 1 holds the quoted arguments of task N."""
    return "".join(f"{shlex.join(command)}\n" for command in job.commands)


def array_text(indices: Iterable[int]) -> str:
    """Return array indices as sbatch reads them, for example `0-3,7`."""
    ranges: list[list[int]] = []
    for index in sorted(indices):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def _check_lengths(job: Job) -> None:
    words = {word.partition("=")[0]: word for word in [*_srun_args(job), *_runtime(job)]}
    words |= {"env of the profile": " ".join(_exports(job))}
    words |= {"the command": max((shlex.join(one) for one in job.commands), key=len)}
    for what, word in words.items():
        if (length := len(word.encode(errors="surrogateescape"))) > MAX_WORD_BYTES:
            raise JobError(
                f"{what} has {length} bytes, and Linux hands no program more than {MAX_WORD_BYTES}"
                " in one piece: make it shorter (folders: mount the one that holds them)"
            )


def _options(job: Job) -> list[str]:
    config = job.config
    named = {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "reservation": config.reservation,
        "constraint": config.constraint,
        "comment": config.comment,
        "dependency": config.dependency,
        "time": config.time,
        "mem": config.memory,
        "exclude": ",".join(config.exclude) or None,
    }
    log = str(job.job_dir / "logs").replace("%", "%%") + (
        "/%A_%a.log" if job.is_array else "/%j.log"
    )
    lines = [
        _option("job-name", job.name),
        _option("output", log),
        _option("chdir", str(job.work_dir)),
        *_node_options(job),
        *_gpu_options(job),
    ]
    lines += [_option(name, value) for name, value in named.items() if value is not None]
    if config.exclusive:
        lines.append("--exclusive")
    if job.is_array:
        limit = f"%{config.max_parallel}" if config.max_parallel else ""
        lines.append(_option("array", array_text(range(len(job.commands))) + limit))
    lines += [
        "--requeue" if config.continue_by == "requeue" else "--no-requeue",
        "--open-mode=append",
        f"--signal=B:USR2@{config.checkpoint_lead_s}",
    ]
    return lines + [_option(*_split(extra)) for extra in config.extra]


def _node_options(job: Job) -> list[str]:
    fewest, most, tasks = job.node_counts[0], job.node_counts[-1], job.tasks_per_node
    cpus = job.cpus_per_task
    per_task = [] if cpus is None else [_option("cpus-per-task", str(cpus))]
    if fewest == most:
        return [_option("nodes", str(most)), _option("ntasks-per-node", str(tasks)), *per_task]
    # With a number of tasks SLURM gives the fewest nodes that hold them, else the most it has.
    size = _option("mincpus", str(tasks * (cpus or 1)))
    return [_option("nodes", f"{fewest}-{most}"), size, *per_task]


def _gpu_options(job: Job) -> list[str]:
    count, kind = job.config.gpus_per_node, job.config.gpu_type
    if not count or job.profile.gpu_request == "none":
        return []
    named = f"{kind}:{count}" if kind else str(count)
    if job.profile.gpu_request == "gres":
        return [_option("gres", f"gpu:{named}")]
    return [_option("gpus-per-node", named)]


def _split(option: str) -> tuple[str, str | None]:
    name, equals, value = option.removeprefix("--").partition("=")
    return name, value if equals else None


def _option(name: str, value: str | None) -> str:
    """Write one option as sbatch's own reader takes it: not a shell, but with its quotes."""
    if value is None:
        return f"--{name}"
    plain = value and all(char.isalnum() or char in "-_./:,%@+=[]&|*()" for char in value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"--{name}={value}" if plain else f'--{name}="{escaped}"'


def _settings(job: Job) -> list[str]:
    config = job.config
    secrets = str(job.job_dir / "secrets") if job.has_secrets else ""
    settings = {
        "job_dir": str(job.job_dir),
        "code_dir": str(job.code_dir),
        "secrets": secrets,
        "python": _python(job),
        "activate": _activate_line(job),
        "launch": config.launch,
        "processes_per_node": str(config.num_processes_per_node),
        "tasks_per_node": str(job.tasks_per_node),
        "checkpoint_lead_s": str(config.checkpoint_lead_s),
        "continue_by": config.continue_by,
        "max_restarts": str(config.max_restarts),
        "max_error_restarts": str(config.max_error_restarts),
        "max_parallel": str(config.max_parallel or 0),
        "exclude": ",".join(config.exclude),
        "exclude_failed_nodes": str(int(config.exclude_failed_nodes)),
        "health_check": job.profile.health_check or "",
        "health_check_timeout_s": str(job.profile.health_check_timeout_s),
        "setup_timeout_s": str(job.profile.setup_timeout_s),
    }
    arrays = {
        "node_counts": [str(count) for count in job.node_counts],
        "srun_args": _srun_args(job),
        "runtime": _runtime(job),
        "command": [] if job.is_array else list(job.commands[0]),
    }
    return [f"{name}={shlex.quote(value)}" for name, value in settings.items()] + [
        f"{name}=({shlex.join(values)})" for name, values in arrays.items()
    ]


def _python(job: Job) -> str:
    kind = job.profile.python_environment.kind
    if kind == "current":
        return job.python
    return "python3" if kind == "path" else "python"


def _activate_line(job: Job) -> str:
    environment = job.profile.python_environment
    path = shlex.quote(environment.path or "")
    return {
        "current": "",
        "path": "",
        "venv": f". {path}/bin/activate",
        "uv": f". {path}/.venv/bin/activate",
        "conda": f'. "$(conda info --base)/etc/profile.d/conda.sh" && conda activate {path}',
    }[environment.kind]


def _srun_args(job: Job) -> list[str]:
    container = job.profile.container
    args = [] if job.cpus_per_task is None else [f"--cpus-per-task={job.cpus_per_task}"]
    if job.config.gpus_per_node and job.profile.gpu_request != "none":
        args.append("--gpu-bind=none")  # every rank sees its node's GPUs and takes LOCAL_RANK's
    if job.config.gpus_per_node:
        # Ranks fill one socket after the other, as GPUs are numbered; SLURM deals them in turn.
        args.append("--distribution=block:block")
    args += job.profile.srun_args
    if container.runtime == "pyxis":
        mounts = [*(f"{folder}:{folder}" for folder in job.mounted_folders), *container.mounts]
        args += [
            f"--container-image={container.image}",
            f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={job.work_dir}",
            *container.args,
        ]
    return args


def _runtime(job: Job) -> list[str]:
    container = job.profile.container
    if container.runtime != "apptainer" or container.image is None:
        return []
    mounts = ",".join([*job.mounted_folders, *container.mounts])
    gpu = ["--nv"] if job.config.gpus_per_node else []
    binds = ["--bind", mounts, "--pwd", str(job.work_dir)]
    return ["apptainer", "exec", *gpu, *binds, *container.args, container.image]


def _exports(job: Job) -> list[str]:
    variables = {**NETWORK_VARIABLES[job.profile.network]}
    if job.config.gpus_per_node:
        # parallel.device = "auto" then takes no CPU (parallel/engine/start.py).
        variables |= GPU_VARIABLES | {"MOESCALE_GPUS": str(job.config.gpus_per_node)}
    if job.profile.interface is not None:
        variables |= {
            "NCCL_SOCKET_IFNAME": job.profile.interface,
            "GLOO_SOCKET_IFNAME": job.profile.interface,
        }
    if (cpus := job.config.num_cpus_per_process) is not None:
        variables["OMP_NUM_THREADS"] = str(cpus)
    if job.cpus_per_task is not None:
        variables["SRUN_CPUS_PER_TASK"] = str(job.cpus_per_task)  # srun takes no other since 22.05
    variables |= job.profile.env
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # Set once more inside a container: there an image's own values go before those it is handed.
    return [*lines, f"of_ranks=({' '.join(variables)})"]


def _prepare(job: Job) -> list[str]:
    lines = [f"module load {shlex.quote(module)}" for module in job.profile.modules]
    lines += job.profile.setup
    if not lines:
        return ["prepare() { :; }"]
    return [
        "prepare() {",
        "  set +u",
        *(["  define_module"] if job.profile.modules else []),
        *(f"  prepare_by {shlex.quote(line)} || return" for line in lines),
        "  set -u",
        "}",
    ]
