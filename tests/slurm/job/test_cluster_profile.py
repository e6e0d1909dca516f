"""The [slurm] section and cluster profiles: what is accepted, what is derived, what is refused."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moe.config.slurm import OWN_OPTIONS, SlurmConfig
from moe.errors import ConfigError
from slurm.errors import JobError
from slurm.job.cluster_profile import (
    ClusterProfile,
    ProfilesFile,
    apply_profile,
    load_profiles,
    profiles_path,
)
from tests.support.docs_examples import toml_example


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("04:00:00", 14_400),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("1-00:00:01", 86_401),
    ],
)
def test_time_is_read_as_sbatch_reads_it(time: str, seconds: int) -> None:
    assert SlurmConfig(time=time).time_limit_s == seconds


def test_time_may_be_written_without_quotes(tmp_path: Path) -> None:
    """TOML reads 04:00:00 as a time of day and 90 as a number: both mean what they say."""
    assert SlurmConfig(**tomllib.loads("time = 04:00:00")).time_limit_s == 14_400
    assert SlurmConfig(**tomllib.loads("time = 90")).time_limit_s == 5400


@given(st.integers(0, 30), st.integers(0, 23), st.integers(3, 59), st.integers(0, 59))
def test_full_times(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    expected = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert SlurmConfig(time=text).time_limit_s == expected


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"time": "four hours"}, "is not a SLURM time"),
        ({"time": "00:01:00"}, "not longer than checkpoint_lead_s"),
        ({"nodes": 2, "min_nodes": 3}, "min_nodes=3 exceeds nodes=2"),
        ({"partition": "a\nb"}, "partition"),
        ({"partition": ""}, "partition"),
        ({"extra": ["-p x"]}, '"--option=value"'),
        ({"extra": ["--array=0-3"]}, "moescale sets --array itself"),
        ({"extra": ["--output=/tmp/x"]}, "moescale sets --output itself"),
        ({"extra": ["--export NONE"]}, '"--option=value"'),
        ({"extra": ["--array 0-5"]}, '"--option=value"'),
        ({"extra": ["--arra=0-5"]}, "moescale sets --array itself"),
        ({"extra": ["--outp=elsewhere/x"]}, "moescale sets --output itself"),
        ({"extra": ["--nod=3"]}, "moescale sets --nodes itself"),
        ({"extra": ["--ex=n1"]}, "moescale sets --exclude itself"),
        ({"extra": ["--cpus-per-task=2"]}, "moescale sets --cpus-per-task itself"),
        ({"extra": ['--comment"=x']}, '"--option=value"'),
        ({"memory": "64 GB"}, "memory"),
        ({"gpus": 8}, "gpus"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        SlurmConfig.model_validate(values)


def test_other_options_pass() -> None:
    options = ("--mail-type=FAIL", "--hold", "--time-min=10", "--gpus=8", "--exclusive=user")
    assert SlurmConfig(extra=options).extra == options


@given(st.sampled_from(sorted(OWN_OPTIONS)), st.integers(2, 20), st.sampled_from(["", "=x"]))
def test_no_beginning_of_an_own_option_passes(name: str, length: int, value: str) -> None:
    if name[:length] != "gpus":
        with pytest.raises(ValidationError, match="itself"):
            SlurmConfig(extra=(f"--{name[:length]}{value}",))


def test_rank_of_a_gpu_has_cores() -> None:
    """Without a word the cluster gives one, on which neither loader nor NCCL gets on."""
    assert SlurmConfig(gpus_per_node=8).num_cpus_per_process == 8
    assert SlurmConfig(gpus_per_node=4, processes_per_node=1).num_cpus_per_process == 32
    assert SlurmConfig(gpus_per_node=8, cpus_per_process=12).num_cpus_per_process == 12
    assert SlurmConfig().num_cpus_per_process is None


def test_ranks_follow_gpus() -> None:
    assert SlurmConfig().num_processes_per_node == 1
    assert SlurmConfig(gpus_per_node=8).num_processes_per_node == 8
    assert SlurmConfig(gpus_per_node=8, processes_per_node=4).num_processes_per_node == 4


SITE = """
default = "alps"
[profiles.alps]
modules = ["cuda/12.8"]
network = "infiniband"
[profiles.alps.slurm]
account = "g123"
partition = "normal"
gpus_per_node = 4
[profiles.mini]
"""


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProfilesFile:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MOESCALE_SLURM_FILE", raising=False)
    (tmp_path / "moescale").mkdir()
    (tmp_path / "moescale" / "slurm.toml").write_text(SITE)
    return load_profiles()


def test_experiment_goes_before_profile_before_default(profiles: ProfilesFile) -> None:
    config, profile = apply_profile(SlurmConfig(partition="debug", nodes=2), profiles)
    assert (config.partition, config.account, config.gpus_per_node) == ("debug", "g123", 4)
    assert (config.nodes, config.max_restarts, config.profile) == (2, 50, "alps")
    assert profile.modules == ("cuda/12.8",)


def test_value_equal_to_the_default_still_overrides_the_profile(profiles: ProfilesFile) -> None:
    config, _ = apply_profile(SlurmConfig(gpus_per_node=0), profiles)
    assert config.gpus_per_node == 0


def test_profile_is_chosen_by_name(profiles: ProfilesFile) -> None:
    config, profile = apply_profile(SlurmConfig(profile="mini"), profiles)
    assert profile == ClusterProfile()
    assert config.account is None
    with pytest.raises(JobError, match=r'"other".*there: alps, mini'):
        apply_profile(SlurmConfig(profile="other"), profiles)


def test_there_need_be_no_site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MOESCALE_SLURM_FILE", raising=False)
    assert load_profiles() == ProfilesFile()
    assert apply_profile(SlurmConfig(nodes=3), load_profiles()) == (
        SlurmConfig(nodes=3),
        ClusterProfile(),
    )


def test_file_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESCALE_SLURM_FILE", str(tmp_path / "mine.toml"))
    assert profiles_path() == tmp_path / "mine.toml"
    with pytest.raises(ConfigError, match=r"mine\.toml: No such file"):
        load_profiles()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('default = "x"', 'default = "x": no such profile'),
        ("[profiles.a]\nmodule = []", "unknown key profiles.a.module: did you mean"),
        ('[profiles.a.container]\nruntime = "pyxis"', "image go together"),
        (
            '[profiles.a.container]\nruntime = "pyxis"\nimage = "x.sqsh"',
            "give its absolute path",
        ),
        ('[profiles.a.environment]\nkind = "venv"', "goes with path"),
        ('[profiles.a]\nsecrets = ["A"]\nenv = {A = "1"}', "both env and secrets"),
        ('[profiles.a]\nenv = {"A B" = "1"}', "profiles.a.env"),
        ('[profiles.a.slurm]\nprofile = "b"', "names another profile"),
    ],
)
def test_wrong_site_file_is_told_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "slurm.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_profiles(path)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_container_brings_its_own_python() -> None:
    contained = {"runtime": "apptainer", "image": "/a.sif"}
    profile = ClusterProfile.model_validate({"container": contained})
    assert profile.python_environment.kind == "path"
    with pytest.raises(ValidationError, match="outside the container"):
        ClusterProfile.model_validate({"container": contained, "environment": {"kind": "current"}})


def test_the_guide_s_profile_is_valid() -> None:
    values = toml_example("docs/guides/slurm.md", with_table="profiles")
    config, profile = apply_profile(SlurmConfig(nodes=2), ProfilesFile(**values))
    assert (config.account, config.num_processes_per_node) == ("g123", 8)
    assert profile.container.runtime == "pyxis"
