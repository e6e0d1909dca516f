"""What tests of energy sources share: a clock moved by hand, a powercap tree."""

from pathlib import Path

import pytest

from tests.support.fake_meters import FakeClock
from tests.support.fake_powercap import make_zone


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, one with DRAM and cores; `psys` and the mmio view count the same again."""
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    make_zone(tmp_path, "intel-rapl:0:0", "core", 900_000)
    make_zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000)
    make_zone(tmp_path, "intel-rapl:1", "package-1", 3_000_000)
    make_zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    make_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path
