"""Names of tensors and files in messages, whatever they are."""

from pathlib import Path

import pytest

from moe.convert.hub_checks import raise_tensor_faults
from moe.convert.listed_names import MAX_SHOWN, listed
from moe.errors import ConfigError


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a", "b", "c"], "a, b, c"),
        (["a", "b", "c", "d", "e"], "a, b, c and 2 more"),
        (["x\n\x1b[31m", "\ud800"], r"x\x0a\x1b[31m, \ud800"),
        (["y" * 2_000_000], f"{'y' * MAX_SHOWN}..."),
    ],
)
def test_names_are_one_short_line(names: list[str], shown: str) -> None:
    assert listed(names) == shown


def test_faults_of_tensors_name_them_in_one_short_line() -> None:
    with pytest.raises(ConfigError) as caught:
        raise_tensor_faults(Path("m"), {"missing": [], "unknown": ["a\nb", "z" * 10_000]})
    assert str(caught.value) == rf"m: tensors unknown: a\x0ab, {'z' * MAX_SHOWN}..."
