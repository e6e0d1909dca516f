"""Recipe files: what they may say, and how they are refused."""

from pathlib import Path
from typing import Any

import pytest

from data.build.build import build_recipe
from data.errors import DataError
from data.recipe import read_recipe
from data.store.reader import Store
from tests.support.docs_examples import blocks
from tests.support.store_helpers import texts

RECIPE = """
tokenizer = "bytes"
held_out_fraction = 0.25

[[source]]
name = "web"
paths = ["web"]
weight = 2
separator = "<|end|>"

[[source]]
name = "books"
paths = ["books.jsonl"]
text_column = "body"
weight = 1

[clean]
unicode = "nfc"
decontaminate = ["eval.txt"]
"""


def test_the_guide_s_recipe_is_valid(tmp_path: Path) -> None:
    (text,) = (text for text in blocks("docs/guides/build_data.md", "toml") if "[clean]" in text)
    (tmp_path / "r.toml").write_text(text)
    wanted = read_recipe(tmp_path / "r.toml")
    assert [source.name for source in wanted.source] == ["web", "books"]
    assert wanted.clean.near_duplicates == 0.8 and wanted.canaries is not None


def test_a_recipe_file_starts_paths_at_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "r" / "web").mkdir(parents=True)
    (tmp_path / "r" / "web" / "a.txt").write_text("one<|end|>two")
    (tmp_path / "r" / "books.jsonl").write_text('{"body": "three"}\n')
    (tmp_path / "r" / "eval.txt").write_text("nothing of this")
    (tmp_path / "r" / "r.toml").write_text(RECIPE)
    wanted = read_recipe(tmp_path / "r" / "r.toml")
    assert build_recipe(wanted, tmp_path / "out", workers=1).documents == 3
    assert sorted(texts(Store.open(tmp_path / "out"))) == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("unicode =", "unicod ="), r"unknown key clean.unicod: did you mean unicode?"),
        (('"nfc"', '"nfd"'), r"clean.unicode = 'nfd': Input should be 'none', 'nfc' or 'nfkc'"),
        (("0.25", "0.75"), r"held_out_fraction = 0.75: .* less than or equal to 0.5"),
        (("weight = 1", ""), "weight: give every source one, or none"),
        (('"books"', '"web"'), "two sources are named 'web': rename one"),
        (('"books"', '"a/b"'), r"source.1.name = 'a/b'"),
        (("[clean]", "[clean"), "not valid TOML"),
        ((RECIPE, ""), "source: Field required"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, change: Any, message: str) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace(*change))
    with pytest.raises(DataError, match=message) as caught:
        read_recipe(tmp_path / "r.toml")
    assert "\n" not in str(caught.value) and "r.toml" in str(caught.value)
