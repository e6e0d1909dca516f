"""Phase times on disk, read back as intervals."""

from benchmarks.energy.phase_log import PhaseRow, phase_intervals


def test_phases_after_the_checkpoint_are_redone() -> None:
    rows = [
        PhaseRow(0, "start", "0"),
        PhaseRow(0, "phase", "train"),
        PhaseRow(10, "phase", "checkpoint"),
        PhaseRow(11, "phase", "train"),
        PhaseRow(15, "phase", "evaluate"),
        PhaseRow(16, "phase", "train"),
        PhaseRow(18, "start", "2"),
        PhaseRow(18, "phase", "train"),
        PhaseRow(30, "end", ""),
    ]
    found, killed = phase_intervals(rows)
    assert killed == 1
    lengths = [(s.phase, s.end_s - s.begin_s) for s in found]
    assert lengths[:3] == [("train", 10), ("checkpoint", 1), ("redone", 4)]
    assert lengths[3:] == [("evaluate", 1), ("train", 12)]
