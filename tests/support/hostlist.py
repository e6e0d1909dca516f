"""Node lists as SLURM writes them: `rack[1-2]n[01-16,20],login`."""

import re


def expand(text: str) -> list[str]:
    """Return the names, in SLURM's order; numbers keep their padding."""
    names = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        expanded = [""]
        for plain, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", part):
            ends = [plain] if plain else [one for span in ranges.split(",") for one in _span(span)]
            expanded = [name + end for name in expanded for end in ends]
        names += expanded
    return names


def _span(text: str) -> list[str]:
    first, _, last = text.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    return [f"{number:0{len(first)}}" for number in numbers]
