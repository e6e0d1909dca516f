"""What an end is taken for, and how the run goes on from it, simulated."""

import signal
from collections.abc import Callable

import pytest

from slurm.job.cluster_profile import ClusterProfile
from tests.support.simulator import Simulator

Simulate = Callable[..., Simulator]


def test_errors_count_since_the_run_got_further(
    simulate: Simulate, undisturbed: dict[str, object]
) -> None:
    """Two crashes at different steps are two first ones; at one step the run goes nowhere."""
    job = simulate(experiment="die_at = [9, 17, 25]", max_error_restarts=1)
    job.start()
    assert job.run_to_end() == 0, job.log()
    assert job.outcomes() == ["error", "error", "error", "finished"]
    assert job.record() == undisturbed
    stuck = simulate(experiment="die_at = 10\nevery_time = true", max_error_restarts=1)
    stuck.start()
    assert stuck.run_to_end() == 137
    assert stuck.outcomes() == ["error", "error"]


def test_consequence_of_slurm_s_own_requeue_is_no_error(simulate: Simulate) -> None:
    """A node fails: SLURM requeues, and its SIGTERM first ends the question for failed nodes."""
    job = simulate(experiment="die_at = 10", max_error_restarts=0)
    job.replace_command(
        "scontrol",
        'if [ "$2" = node ] && mkdir "$FAKE_SLURM_DIR/asked"; then\n'
        """  sed -i 's/"Restarts": 0/"Restarts": 1/' "$FAKE_SLURM_DIR/state.json"\n"""
        "  kill -TERM $PPID; exit 1\nfi 2>/dev/null",
    )
    job.start()
    assert job.run_to_end() == 0, job.log()
    assert job.outcomes() == ["requeued", "finished"]
    assert not job.calls("scontrol", "requeue")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_other_signals_to_the_whole_job_stop_it_too(
    simulate: Simulate, number: signal.Signals
) -> None:
    """`scancel --full` with them; ranks that were ended before they saved are told."""
    job = simulate()
    job.start(hold_at=5)
    job.signal_all(number)
    job.wait()
    assert job.outcomes() == ["preempted"], job.log()
    assert job.state()["Restarts"] == 1
    if number == signal.SIGUSR1:  # at SIGINT ranks save, if srun leaves them the time
        assert "steps since the last one are trained again" in job.log()


def test_rank_0_is_found_once_slurm_answers(simulate: Simulate) -> None:
    """The node's name, which no name server knows, is the last resort."""
    profile = ClusterProfile(health_check='echo "$MOESCALE_MASTER_ADDR" >"$MOESCALE_ATTEMPT/at"')
    job = simulate(profile=profile)
    job.replace_command("srun", 'export MOESCALE_ATTEMPT="$FAKE_SLURM_DIR"')
    job.set_state(silence=1)
    job.start()
    assert job.wait() == 0, job.log()
    assert (job.folder / "fake" / "at").read_text() == "127.0.0.1\n"


def test_posix_shells_are_survived_too(simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    job = simulate()
    job.replace_command("scontrol", '[ -z "${POSIXLY_CORRECT+x}" ] || exit 1')
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.run_to_end() == 0, job.log()


def test_tasks_that_go_on_in_new_jobs_keep_to_max_parallel(simulate: Simulate) -> None:
    job = simulate(continue_by="submit", array_task=5, max_parallel=4)
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.wait() == 0
    (call,) = job.calls("sbatch")
    assert "--dependency=afterany:90,singleton" in call
    assert "--job-name=job dir's.lane-1" in call


def test_excluded_node_that_slurm_has_forgotten_does_not_end_the_run(simulate: Simulate) -> None:
    job = simulate(continue_by="submit", exclude=("n[8-9]",))
    job.replace_command(
        "sbatch",
        'case "$*" in *exclude=n7,*) echo "error: Invalid node name specified" >&2; exit 1;; esac',
    )
    (job.job_dir / "tasks/0").mkdir(parents=True)
    (job.job_dir / "tasks/0/excluded").write_text("n7\n")
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.wait() == 0, job.log()
    assert "SLURM does not know all of n7,n[8-9] any more" in job.log()
    assert "--exclude=n[8-9]" in job.calls("sbatch")[-1]
