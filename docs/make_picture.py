"""Make docs/images/report.png: the first screen of a report, as a headless Chromium shows it.

`make demo` writes the report; `make picture`, or `python docs/make_picture.py [REPORT.html
[PICTURE.png]]`, makes the picture.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "demo/report/report.html"
PICTURE = ROOT / "docs/images/report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1280, 1300
"""Pixels: the summary, the headline numbers and the first row of plots."""


def make_picture(report: Path = REPORT, picture: Path = PICTURE) -> None:
    """Render a report's first screen to a PNG.

    Raises:
        SystemExit: No report or no browser; says what to do.
    """
    if not report.is_file():
        raise SystemExit(f"{report}: no such report: run `make demo` first, or name another")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}",
             f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=10000",
             f"--screenshot={picture.resolve()}", report.resolve().as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    make_picture(*map(Path, sys.argv[1:3]))
