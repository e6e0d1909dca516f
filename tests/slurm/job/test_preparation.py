"""Before the ranks start: the health of nodes, setup lines that hang, limits, secrets."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.job.cluster_profile import ClusterProfile
from tests.support.simulator import Simulator

Simulate = Callable[..., Simulator]


def checked_by(line: str, timeout_s: int = 60) -> ClusterProfile:
    """A profile with a health check."""
    return ClusterProfile(health_check=line, health_check_timeout_s=timeout_s)


def test_typing_error_excludes_no_node(simulate: Simulate) -> None:
    job = simulate(profile=checked_by("nvidia-smii -L"))
    job.start()
    assert job.run_to_end() == 2
    assert job.outcomes() == ["rejected"]
    assert job.state()["excluded"] == ""
    assert "no node is excluded" in job.log()
    assert "nvidia-smii" in job.log()


def test_check_that_fails_everywhere_excludes_no_node(simulate: Simulate) -> None:
    job = simulate(profile=checked_by("exit 9"))
    job.start()
    assert job.run_to_end() == 1
    assert job.outcomes() == ["error", "error"]
    assert job.state()["excluded"] == ""


def test_only_node_that_fails_is_left_once(simulate: Simulate) -> None:
    """Whether node or check is at fault shows on the next node."""
    job = simulate(profile=checked_by("false"), node_counts=(1, 2), max_error_restarts=0)
    job.start(nodes=("n1",))
    job.wait()
    assert job.state()["excluded"] == "n1"
    job.restart += 1
    job.start(nodes=("n2",))
    assert job.wait() == 1
    assert job.outcomes() == ["node_failure", "error"]
    assert job.state()["excluded"] == "n1"


def test_node_on_which_the_check_hangs_is_excluded(simulate: Simulate) -> None:
    job = simulate(profile=checked_by('[ "$SLURMD_NODENAME" = n1 ] || sleep 1000', 1))
    job.start()
    job.wait()
    assert job.outcomes() == ["node_failure"], job.log()
    assert job.state()["excluded"] == "n2"


def test_check_that_ends_the_shell_is_heard(simulate: Simulate) -> None:
    job = simulate(profile=checked_by('[ "$SLURMD_NODENAME" = n2 ] && exit 1 || exit 0'))
    job.start()
    job.wait()
    assert job.state()["excluded"] == "n2"


def test_check_that_srun_cannot_start_is_no_health(simulate: Simulate) -> None:
    job = simulate(profile=checked_by("true"), max_error_restarts=0)
    job.replace_command("srun", "exit 1")
    job.start()
    assert job.wait() == 1
    assert job.outcomes() == ["error"]
    assert "health check did not start on any node" in job.log()
    assert job.state()["excluded"] == ""


def test_signal_ends_a_check_that_lasts(simulate: Simulate) -> None:
    job = simulate(profile=checked_by("sleep 1000", 100_000))
    job.start()
    job.wait_until(lambda: bool(job.calls("srun")))
    job.signal_batch(signal.SIGUSR2)
    job.wait()
    assert job.outcomes() == ["preempted"], job.log()


@pytest.mark.parametrize("line", ["sleep 1000", "while :; do sleep 0.05; done"])
def test_setup_line_that_hangs_has_failed(simulate: Simulate, line: str) -> None:
    profile = ClusterProfile(setup=(line,), setup_timeout_s=1)
    job = simulate(profile=profile, max_error_restarts=0)
    job.start()
    assert job.wait() == 1
    assert job.outcomes() == ["error"], job.log()
    assert f"setup_timeout_s=1 is over: {line}" in job.log()


def test_limits_are_raised_and_module_is_found(
    simulate: Simulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`module` is a function of login shells, which zsh and fish do not hand on."""
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text('module() { echo "$2" >"$SEEN"; }\n')
    monkeypatch.setenv("LMOD_PKG", str(tmp_path))
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    check = 'echo "$(ulimit -Sn) $(ulimit -Sc) $(ulimit -Hn)" >"$SEEN.limits"'
    job = simulate(profile=ClusterProfile(modules=("cuda/12.8",), health_check=check))
    script = job.job_dir / "job.sh"
    low = 'set -uo pipefail; ulimit -Sn 256; ulimit -Sc "$(ulimit -Hc)"'
    script.write_text(script.read_text().replace("set -uo pipefail", low, 1))
    job.start()
    assert job.wait() == 0, job.log()
    assert (tmp_path / "seen").read_text() == "cuda/12.8\n"
    files, cores, most = (tmp_path / "seen.limits").read_text().split()
    assert cores == "0"
    assert files == most or int(files) == 1_048_576


def test_secrets_go_with_the_run(simulate: Simulate) -> None:
    job = simulate(has_secrets=True, continue_by="requeue")
    secrets = job.job_dir / "secrets"
    secrets.write_text("export MY_KEY=k\n")
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    job.wait()
    assert secrets.exists()
    assert job.restarted()
    assert job.wait() == 0, job.log()
    assert not secrets.exists()
    job.start()
    assert job.wait() == 1
    assert "secrets is gone" in job.log()
