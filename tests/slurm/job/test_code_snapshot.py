"""The code that jobs run: all of it, recorded, unchanged by what is edited later."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slurm.errors import JobError
from slurm.job.code_snapshot import read_code, store_code


def git(checkout: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", "-C", str(checkout), *identity, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with one commit."""
    root = tmp_path / "check out"
    for name in ("moe", "data", "slurm"):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text(f'"""{name}."""\n')
    (root / "moescale.py").write_text("version = 1\n")
    (root / ".gitignore").write_text("*.cache\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def read(checkout: Path, folder: Path) -> Path:
    folder.mkdir()
    return read_code(folder, checkout).path


def test_uncommitted_changes_are_shipped_and_recorded(checkout: Path, tmp_path: Path) -> None:
    (checkout / "moescale.py").write_text("version = 2\n")
    (checkout / "moe" / "new.py").write_text("new = True\n")
    (checkout / "moe" / "big.cache").write_text("ignored")
    (checkout / "notes.txt").write_text("not code")
    git(checkout, "rm", "-q", "data/__init__.py")
    (tmp_path / "a").mkdir()
    snapshot = read_code(tmp_path / "a", checkout)
    assert snapshot.dirty
    assert snapshot.commit == git(checkout, "rev-parse", "HEAD")
    found = {str(p.relative_to(snapshot.path)) for p in snapshot.path.rglob("*") if p.is_file()}
    code = {"moescale.py", "moe/__init__.py", "moe/new.py", "slurm/__init__.py"}
    assert found == code | {"changes.diff", "snapshot.json"}
    assert (snapshot.path / "moescale.py").read_text() == "version = 2\n"


def test_commit_and_diff_give_the_code_back(checkout: Path, tmp_path: Path) -> None:
    (checkout / "moescale.py").write_text("version = 2\n")
    (checkout / "moe" / "new.bin").write_bytes(bytes(range(256)))
    code = read(checkout, tmp_path / "a")
    record = json.loads((code / "snapshot.json").read_text())
    clone = tmp_path / "clone"
    git(checkout, "clone", "-q", str(checkout), str(clone))
    git(clone, "checkout", "-q", record["commit"])
    git(clone, "apply", str(code / "changes.diff"))
    for name in ("moescale.py", "moe/new.bin"):
        assert (clone / name).read_bytes() == (code / name).read_bytes()


def test_checkout_is_left_as_it_was(checkout: Path, tmp_path: Path) -> None:
    (checkout / "moe" / "new.py").write_text("new = True\n")
    (checkout / "moescale.py").write_text("version = 2\n")
    git(checkout, "add", "moescale.py")
    before = git(checkout, "status", "--porcelain"), git(checkout, "count-objects")
    read(checkout, tmp_path / "a")
    assert (git(checkout, "status", "--porcelain"), git(checkout, "count-objects")) == before


def test_equal_code_is_kept_once(checkout: Path, tmp_path: Path) -> None:
    kept = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        kept.append(store_code(read_code(tmp_path / name, checkout), tmp_path / "store"))
    assert kept[0] == kept[1]
    assert [path.name for path in (tmp_path / "store").iterdir()] == [kept[0].tree]
    (checkout / "moe" / "__init__.py").write_text("other = 1\n")
    (tmp_path / "c").mkdir()
    assert read_code(tmp_path / "c", checkout).tree != kept[0].tree


def test_submissions_at_the_same_moment_share_code(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    snapshot, store = read_code(tmp_path / "a", checkout), tmp_path / "store"
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda _: store_code(snapshot, store), range(8)))
    assert {one.path for one in kept} == {store / snapshot.tree}
    assert [path.name for path in store.iterdir()] == [snapshot.tree]


def test_code_outside_a_checkout_is_copied_and_says_so(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    tree = read_code(tmp_path / "a", checkout).tree
    (checkout / "moe" / "__pycache__").mkdir()
    (checkout / "moe" / "__pycache__" / "x.pyc").write_text("")
    (checkout / ".git").rename(tmp_path / "elsewhere")
    (tmp_path / "b").mkdir()
    snapshot = read_code(tmp_path / "b", checkout)
    assert (snapshot.commit, snapshot.dirty) == (None, None)
    assert snapshot.tree == tree


def test_checkout_without_a_commit_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    (tmp_path / "a").mkdir()
    with pytest.raises(JobError, match="code snapshot of .*empty: git read-tree"):
        read_code(tmp_path / "a", tmp_path / "empty")


@pytest.mark.parametrize("in_git", [True, False])
def test_links_are_kept_and_editors_locks_left_out(
    checkout: Path, tmp_path: Path, in_git: bool
) -> None:
    (checkout / "moe" / ".#train.py").symlink_to("me@here.123:456")
    (checkout / "moe" / "link.py").symlink_to("__init__.py")
    (checkout / "moe" / "nowhere.py").symlink_to("not there")
    if not in_git:
        (checkout / ".git").rename(tmp_path / "elsewhere")
    (tmp_path / "a").mkdir()
    kept = store_code(read_code(tmp_path / "a", checkout), tmp_path / "store").path / "moe"
    assert {path.name for path in kept.iterdir()} == {"__init__.py", "link.py", "nowhere.py"}
    assert (kept / "link.py").readlink() == Path("__init__.py")


def test_link_out_of_the_checkout_is_named(checkout: Path, tmp_path: Path) -> None:
    (checkout / "moe" / "away.py").symlink_to("/etc/hostname")
    (tmp_path / "a").mkdir()
    with pytest.raises(JobError, match=r"moe/away\.py.*link to an absolute path.*remove it"):
        read_code(tmp_path / "a", checkout)
