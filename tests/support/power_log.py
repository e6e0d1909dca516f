"""The CSV that a power logger writes."""

from pathlib import Path


def write_power_log(path: Path, *rows: tuple[float | str, float, str]) -> Path:
    lines = [f"{time},{watts},{device}\n" for time, watts, device in rows]
    path.write_text("time,watts,device\n" + "".join(lines))
    return path
