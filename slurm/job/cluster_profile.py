"""Cluster profiles: what is true of a cluster rather than of an experiment.

They live in the user's `~/.config/moescale/slurm.toml`, so experiments stay portable:

    default = "alps"

    [profiles.alps]
    modules = ["cuda/12.8"]
    network = "infiniband"
    secrets = ["WANDB_API_KEY"]

    [profiles.alps.slurm]          # defaults of every experiment's [slurm]
    account = "g123"
    partition = "normal"

    [profiles.alps.container]
    runtime = "pyxis"
    image = "/images/moescale.sqsh"
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, StringConstraints, model_validator

from data.frozen_model import FrozenModel
from moe.config.experiment import validated
from moe.config.slurm import Line, SlurmConfig
from moe.config.toml_file import read_toml
from slurm.errors import JobError

VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class EnvironmentConfig(FrozenModel):
    """Where Python comes from on the compute nodes (inside the container, if there is one)."""

    kind: Literal["current", "venv", "conda", "uv", "path"] = "current"
    """`current`: the interpreter that submits; `venv`: a virtual environment; `conda`: a name or
    prefix; `uv`: a uv project's `.venv` (never synchronised by a job); `path`: `python3` as found.
    """
    path: Line | None = None
    """The virtual environment, uv project, or conda environment."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind in {"venv", "conda", "uv"}) != (self.path is not None):
            raise ValueError(f'kind = "{self.kind}" goes with path only for venv, conda and uv')
        return self


class ContainerConfig(FrozenModel):
    """The container that ranks run in; the batch shell always stays outside."""

    runtime: Literal["none", "pyxis", "apptainer"] = "none"
    """`pyxis`: srun's plugin (enroot); `apptainer`: `apptainer exec` around each task."""
    image: Line | None = None
    """Image: an absolute path, or a registry's name (`docker://...`, pyxis also `name:tag`)."""
    mounts: tuple[Line, ...] = ()
    """Folders to see inside, `/path` or `/outside:/inside`. Runs and code are always mounted."""
    args: tuple[Line, ...] = ()
    """More arguments of srun (pyxis) or `apptainer exec`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.runtime != "none") != (self.image is not None):
            raise ValueError("runtime and image go together: set both or neither")
        image = self.image or ""
        if image.endswith((".sqsh", ".sif", ".img")) and not image.startswith("/"):
            raise ValueError(f'image = "{image}" is a file: give its absolute path')
        if any(not mount.startswith("/") for mount in self.mounts):
            raise ValueError("mounts begin with an absolute path")
        return self


class ClusterProfile(FrozenModel):
    """What one user's jobs need on one cluster."""

    slurm: SlurmConfig = SlurmConfig()
    """Defaults of the experiment's `[slurm]` section."""
    environment: EnvironmentConfig | None = None
    """Default: `current`, or `path` inside a container."""
    container: ContainerConfig = ContainerConfig()
    modules: tuple[Line, ...] = ()
    """Environment modules that the batch shell loads."""
    setup: tuple[Line, ...] = ()
    """Shell lines that the batch shell runs before the ranks start; each must succeed."""
    setup_timeout_s: PositiveInt = 600
    """Seconds after which a module or a line of `setup` has failed."""
    env: dict[VariableName, str] = Field(default_factory=dict)
    """Environment variables of every rank. Not for secrets: they stand in the script."""
    secrets: tuple[VariableName, ...] = ()
    """Variables taken from the submitting shell through a file that only you can read."""
    network: Literal["auto", "infiniband", "efa", "ethernet"] = "auto"
    """Settings for NCCL's transport; `auto` leaves NCCL to find out."""
    interface: Line | None = None
    """Network interface of the sockets of NCCL and gloo, for example `hsn0`."""
    gpu_request: Literal["gpus-per-node", "gres", "none"] = "gpus-per-node"
    """How the cluster wants GPUs asked for; `none`: whole nodes come with theirs."""
    health_check: Line | None = None
    """Shell command that fails on a sick node, for example `nvidia-smi -L`; run before each start,
    its failures are excluded. Where it fails on every node, the check is taken to be wrong."""
    health_check_timeout_s: PositiveInt = 60
    """Seconds after which a node has failed it: on a lost GPU, commands may hang for ever."""
    srun_args: tuple[Line, ...] = ()
    """More srun arguments, for example `--mpi=pmix`."""

    @property
    def python_environment(self) -> EnvironmentConfig:
        """The environment, resolved."""
        contained = self.container.runtime != "none"
        return self.environment or EnvironmentConfig(kind="path" if contained else "current")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.slurm.profile is not None:
            raise ValueError("slurm.profile names another profile: remove it")
        if self.container.runtime != "none" and self.python_environment.kind == "current":
            raise ValueError(
                'environment.kind = "current" is outside the container: use "path", or "venv" with'
                " a path inside"
            )
        both = set(self.env) & set(self.secrets)
        if both:
            raise ValueError(f"{sorted(both)[0]} is in both env and secrets: keep one")
        return self


class ProfilesFile(FrozenModel):
    """The user's file of profiles."""

    default: str | None = None
    """Profile of experiments that name none."""
    profiles: dict[str, ClusterProfile] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.default is not None and self.default not in self.profiles:
            raise ValueError(f'default = "{self.default}": {_known(self)}')
        return self


def profiles_path() -> Path:
    """Return the user file: `$MOESCALE_SLURM_FILE`, or `moescale/slurm.toml` in the XDG folder."""
    named = os.environ.get("MOESCALE_SLURM_FILE")
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return Path(named) if named else config_home / "moescale" / "slurm.toml"


def load_profiles(path: Path | None = None) -> ProfilesFile:
    """Read the user file; without one there are no profiles.

    Raises:
        ConfigError: The file breaks a rule, or is missing though `$MOESCALE_SLURM_FILE` names it.
    """
    where = path or profiles_path()
    if path is None and not os.environ.get("MOESCALE_SLURM_FILE") and not where.exists():
        return ProfilesFile()
    return validated(ProfilesFile, read_toml(where), str(where))


def apply_profile(config: SlurmConfig, file: ProfilesFile) -> tuple[SlurmConfig, ClusterProfile]:
    """Fill what an experiment leaves out from its profile.

    Raises:
        JobError: The profile is unknown.
        ConfigError: Both together break a rule.
    """
    name = config.profile or file.default
    if name is None:
        return config, ClusterProfile()
    if name not in file.profiles:
        raise JobError(f'slurm.profile = "{name}": {_known(file)}')
    profile = file.profiles[name]
    merged = {
        **profile.slurm.model_dump(exclude_unset=True),
        **config.model_dump(exclude_unset=True),
        "profile": name,
    }
    return validated(SlurmConfig, merged, f"experiment with profile {name}", ("slurm",)), profile


def _known(file: ProfilesFile) -> str:
    names = ", ".join(sorted(file.profiles)) or "none"
    return f"no such profile in {profiles_path()} (there: {names})"
