"""A powercap tree (RAPL) in a temporary directory, and a way to move its counters."""

from pathlib import Path

RANGE_UJ = 262_143_328_850


def make_zone(root: Path, name: str, kind: str, energy_uj: int, *, max_watts: int = 200) -> Path:
    path = root / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{kind}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (path / "constraint_0_max_power_uw").write_text(f"{max_watts * 10**6}\n")
    return path


def add_joules(path: Path, joules: float) -> None:
    count = int((path / "energy_uj").read_text()) + round(joules * 1e6)
    (path / "energy_uj").write_text(f"{count % (RANGE_UJ + 1)}\n")
