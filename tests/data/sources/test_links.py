"""Links below a source are followed where they stay inside it, and refused where they leave."""

from pathlib import Path

import pytest

from data.errors import DataError
from data.sources.discovery import find_input_files, walk_files
from data.storage.link_bounds import LinkBounds
from tests.data.sources.test_readers import build, recipe, texts


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a source, `in`, and `elsewhere`, which is nobody's to read."""
    for folder in ("in/below", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "in/below/a.txt").write_text("inside")
    (tmp_path / "elsewhere/secret.txt").write_text("secret")
    return tmp_path


def test_a_source_may_be_a_link_and_so_may_what_stays_inside(place: Path) -> None:
    (place / "in/again.txt").symlink_to("below/a.txt")
    (place / "in/folder").symlink_to("below")
    (place / "link").symlink_to("in")
    names = [path.name for path in walk_files(place / "link")]
    assert names == ["again.txt", "a.txt"]  # of the folder's two names, the first that is met
    assert texts(build(place / "out", place / "link")) == ["inside"]


@pytest.mark.parametrize("name", ["b.txt", "below/b.jsonl", "b.parquet", "folder", "below/train"])
def test_a_link_that_leaves_its_source_is_refused(name: str, place: Path) -> None:
    path = place / "in" / name
    target = place / "elsewhere" / ("secret.txt" if path.suffix else "")
    path.symlink_to(target)
    with pytest.raises(DataError) as caught:
        find_input_files(recipe(place / "in"))
    line = str(caught.value)
    assert line.startswith(f"{path}: a link that leads out of {place / 'in'}, to {target}: name")
    assert "\n" not in line
    assert texts(build(place / "out", target)) == ["secret"]  # named as a path, it is read


def test_a_link_through_another_is_judged_by_where_it_ends(place: Path) -> None:
    (place / "in/way").symlink_to("..")
    (place / "in/b.txt").symlink_to("way/elsewhere/secret.txt")
    with pytest.raises(DataError, match="a link that leads out of"):
        list(walk_files(place / "in"))


@pytest.mark.parametrize("name", ["dataset_dict.json", "state.json", "train"])
def test_parts_of_a_saved_dataset_stay_inside(name: str, place: Path) -> None:
    (place / "elsewhere" / name).mkdir() if name == "train" else None
    (place / "elsewhere" / name).touch()
    (place / "in/dataset_dict.json").write_text('{"splits": ["train"]}')
    (place / "in" / name).unlink(missing_ok=True)
    (place / "in" / name).symlink_to(place / "elsewhere" / name)
    with pytest.raises(DataError, match=f"{name}: a link that leads out of"):
        list(walk_files(place / "in"))


def test_evaluation_files_stay_inside_too(place: Path) -> None:
    (place / "in/b.txt").symlink_to(place / "elsewhere/secret.txt")
    with pytest.raises(DataError, match="b.txt: a link that leads out of"):
        build(place / "out", place / "elsewhere", clean={"decontaminate": [place / "in"]})


def test_links_of_files_that_are_not_read_do_not_matter(place: Path) -> None:
    for name in ("b.csv", ".hidden.txt", ".hidden"):
        (place / "in" / name).symlink_to(place / "elsewhere/secret.txt")
    assert [path.name for path in walk_files(place / "in")] == ["a.txt"]


def test_a_snapshot_of_the_download_cache_is_read(place: Path) -> None:
    """Its files are links into the `blobs` beside `snapshots`."""
    (place / "blobs").mkdir()
    (place / "blobs/ab12").write_text("cached")
    snapshot = place / "snapshots/main"
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data/a.txt").symlink_to("../../../blobs/ab12")
    for root in (snapshot, snapshot / "data"):
        assert [path.read_text() for path in walk_files(root)] == ["cached"]
    (snapshot / "b.txt").symlink_to(place / "elsewhere/secret.txt")
    with pytest.raises(DataError, match="b.txt: a link that leads out of"):
        list(walk_files(snapshot))


def test_a_folder_whose_name_begins_like_another_s_is_outside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "inner").touch()
    assert LinkBounds(tmp_path / "in").target_outside(tmp_path / "inner") is not None
    assert LinkBounds(tmp_path / "in").target_outside(tmp_path / "in") is None
