"""Containers see the folder of a run's power log, under each of its names."""

from pathlib import Path

from moe.config.experiment import make_experiment
from slurm.job.plan import _input_folders


def test_the_folder_of_the_power_log_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "power.csv").write_text("time,watts\n")
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "power.csv").symlink_to(tmp_path / "logs" / "power.csv")
    experiment = make_experiment(
        {
            "model": {"preset": "tiny"},
            "train": {"steps": 1, "seq_len": 8, "global_batch_size": 1},
            "energy": {"source": "csv", "power_csv": "named/power.csv"},
        }
    )
    folders = _input_folders([experiment], tmp_path)
    assert {str(tmp_path / "logs"), str(tmp_path / "named")} <= set(folders)
