"""The page of laws says what the laws say of themselves."""

import pytest

from benchmarks.laws.quantities import QUANTITIES
from benchmarks.laws.registry import LAWS
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/explanation/laws.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs/guides/laws.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LAWS)
def test_form_conventions_and_coefficients(name: str) -> None:
    law = LAWS[name]
    (section,) = (part for part in PAGE.split("\n## ") if part.startswith(f"{name}: {law.title}\n"))
    assert law.formula in section
    assert law.source in section
    stated = law.conventions.as_json()
    stated.pop("loss")
    assert all(text in section for text in stated.values() if text not in (None, "none"))
    for published in law.published:
        assert published.source in section
        for coefficient, value in published.values.items():
            texts = (f"{value:{form}}".replace("e+", "e") for form in ("g", ".7g"))
            assert any(f"{coefficient} {text}" in section for text in texts), coefficient
    assert all(note in section for note in law.notes)


def test_the_guide_names_every_column() -> None:
    assert [name for name in QUANTITIES if f"`{name}`" not in GUIDE] == []
