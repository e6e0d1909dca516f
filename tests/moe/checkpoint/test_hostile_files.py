"""A checkpoint that somebody else made or that was damaged: one line, or a valid read."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from data.errors import InputError
from moe.checkpoint.directory import STATE, read_state
from moe.checkpoint.index import INDEX, StoredTensors, read_index, verify_files, write_index
from moe.checkpoint.index_format import FORMAT
from moe.checkpoint.state_format import RUN_KEYS
from moe.errors import ConfigError
from tests.support.hostile_json import damaged, mutations

KEEPS_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
FILE = "rank-00000.safetensors"
GROUP = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "wd_mult": 1.0,
         "lr_mult": 1.0, "step": 3, "is_expert_parallel": False, "min_lr": None}  # fmt: skip
DISTRIBUTED = {"param_state_sharding_type": "fully_reshardable"}
COMMON = {"optimizer": {"0": {"optimizer": {"param_groups": [GROUP, GROUP]}, **DISTRIBUTED}}}
PART_SHAPE = [2, 3]
STATE_VALUES: dict[str, Any] = {
    "step": 3,
    "tokens": 96,
    "stream_hash": "abc",
    "train_time_s": 1.5,
    "data": {"next_sample": 12, "fingerprint": "f"},
    "guard": [1.0, 2.5],
    "fp8": [[[0.5, 1.0, 2.0]]],
    "observers": [{"phases": {}}],
}


def without_steps() -> dict[str, Any]:
    group = {key: value for key, value in GROUP.items() if key != "step"}
    return {"optimizer": {"param_groups": [group]}, **DISTRIBUTED}


def entry(name: str, offset: list[int]) -> dict[str, Any]:
    place = {"whole": [4, 3], "offset": offset, "shape": PART_SHAPE}
    return {"key": "decoder.weight", **place, "file": FILE, "name": name}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of one tensor in two shards."""
    path = tmp_path / "step-00000003"
    path.mkdir()
    save_file({name: torch.full(PART_SHAPE, float(name)) for name in "01"}, path / FILE)
    (path / STATE).write_text(json.dumps(STATE_VALUES))
    parts = [entry("0", [0, 0]), entry("1", [2, 0])]
    write(
        path, {"format": FORMAT, "common": COMMON, "files": {FILE: "", STATE: ""}, "parts": parts}
    )
    return path


def write(path: Path, index: Any) -> None:
    """Write an index as whoever made it would: its checksums are right."""
    files = index.get("files") if isinstance(index, dict) else None
    for name in files if isinstance(files, dict) else ():
        if name in {FILE, STATE}:
            files[name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    if isinstance(index, dict):
        index.pop("checksum", None)
        write_index(path, index)
    else:
        (path / INDEX).write_text(json.dumps(index))


def content(path: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((path / INDEX).read_text())
    return index


def read(path: Path) -> torch.Tensor:
    """Read all that there is."""
    verify_files(path)
    stored = StoredTensors(path, read_index(path))
    whole = torch.full((4, 3), -1.0)
    if not stored.read_block(whole, "decoder.weight", (0, 0), (4, 3)):
        raise ConfigError("incomplete")
    read_state(path, RUN_KEYS)
    return whole


def test_a_good_checkpoint_is_read(path: Path) -> None:
    assert read(path).tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    assert read_state(path) == STATE_VALUES
    assert read_index(path).common.values() == COMMON


def absolute(path: Path) -> str:
    return str(path.parent / "other.safetensors")


@pytest.mark.parametrize("name", ["../other.safetensors", absolute, "/dev/zero", "..", "a\\b"])
@pytest.mark.parametrize("where", ["parts", "files"])
def test_names_stay_in_the_folder(
    path: Path, name: str | Callable[[Path], str], where: str
) -> None:
    (path.parent / "other.safetensors").write_bytes((path / FILE).read_bytes())
    index, name = content(path), name if isinstance(name, str) else name(path)
    if where == "parts":
        index["parts"][0]["file"] = name
    else:
        index["files"][name] = "0" * 64
    write(path, index)
    with pytest.raises(ConfigError, match="not the plain name of a file in this directory"):
        read(path)


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
@pytest.mark.parametrize("name", [INDEX, STATE, FILE])
def test_only_regular_files_of_the_folder_are_opened(path: Path, kind: str, name: str) -> None:
    outside = (path / name).rename(path.parent / name)
    if kind == "fifo":
        os.mkfifo(path / name)
    elif kind == "link":
        (path / name).symlink_to(outside)
    else:
        (path / name).mkdir()
    message = {"fifo": "not a regular file", "link": "a symbolic link", "folder": "Is a directory"}
    reads: list[Callable[[], Any]] = [lambda: verify_files(path)]
    if name == FILE:
        reads.append(lambda: StoredTensors(path, read_index(path)).dtype("decoder.weight"))
    elif name == STATE:
        reads.append(lambda: read_state(path))
    for act in reads:
        with pytest.raises(ConfigError, match=message[kind]):
            act()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda index: index["parts"][0].update(codec=1),
            "unknown key parts.0.codec: read it with the ver",
        ),
        (lambda index: index.update(later=1), "unknown key later"),
        (lambda index: index.pop("parts"), "parts is missing"),
        (lambda index: index.pop("files"), "files is missing"),
        (lambda index: index["parts"].pop(), "incomplete"),
        (lambda index: index["parts"][1].update(offset=[1, 0]), "the parts of tensor .* overlap"),
        (lambda index: index["parts"].append(entry("1", [1, 0])), "its parts overlap"),
        (lambda index: index["parts"][1].update(offset=[3, 0]), "reaches beyond the tensor's"),
        (lambda index: index["parts"][1].update(offset=[-1, 0]), "parts.1.offset.0 = -1"),
        (lambda index: index["parts"][1].update(whole=[4]), "unlike numbers of axes"),
        (lambda index: index["parts"][1].update(whole=[5, 3]), "tensors of unlike shapes"),
        (lambda index: index["parts"][1].update(name="7"), "the file has no such tensor"),
        (
            lambda index: index["parts"][1].update(shape=[1, 3]),
            r"wants shape \[1, 3\], and the file has a tensor of shape \[2, 3\]",
        ),
        (lambda index: index["files"].pop(FILE), "is not among `files`"),
        (lambda index: index.update(format=True), "format True, but this version reads 1 and 2"),
        (lambda index: index.update(format=3), "format 3, but this version reads 1 and 2"),
        (
            lambda index: index["common"]["optimizer"]["0"]["optimizer"]["param_groups"][0].update(
                weight_decay="0.1"
            ),
            "weight_decay = '0.1'",
        ),
        (
            lambda index: index["common"]["optimizer"]["0"]["optimizer"]["param_groups"][0].pop(
                "step"
            ),
            "param_groups are of unlike steps",
        ),
        (
            lambda index: index["common"]["optimizer"].update({"1": without_steps()}),
            "optimizer: its parts are of unlike steps",
        ),
    ],
)
def test_what_breaks_the_format_is_named(
    path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    index = content(path)
    change(index)
    write(path, index)
    with pytest.raises(ConfigError, match=message):
        read(path)


@pytest.mark.parametrize("text", ["[]", "1", "[" * 20_000, '{"format": NaN}', "", '"\\ud800"'])
@pytest.mark.parametrize("name", [INDEX, STATE])
def test_no_document_at_all(path: Path, text: str, name: str) -> None:
    (path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        (read_index if name == INDEX else read_state)(path)


def test_a_state_without_what_a_run_needs_is_not_resumed(path: Path) -> None:
    (path / STATE).write_text('{"step": 0}')  # as `moe convert` writes it
    assert read_state(path) == {"step": 0}
    with pytest.raises(ConfigError, match="lacks tokens, stream_hash, train_time_s, data, so"):
        read_state(path, RUN_KEYS)


@pytest.mark.parametrize(
    ("key", "value"), [("stream_hash", "\ud800"), ("train_time_s", 0.0), ("rejected_steps", True)]
)
def test_a_state_that_no_run_leaves_is_not_resumed(path: Path, key: str, value: Any) -> None:
    state = json.loads((path / STATE).read_text())
    (path / STATE).write_text(json.dumps(state | {key: value}))
    with pytest.raises(ConfigError, match=f"{STATE}: {key} = "):
        read_state(path)


def test_integers_stored_for_weights_are_not_cast(path: Path) -> None:
    save_file({name: torch.full(PART_SHAPE, int(name)) for name in "01"}, path / FILE)
    write(path, content(path))
    with pytest.raises(ConfigError, match=r"has numbers of another kind \(torch.int64\)"):
        read(path)


@KEEPS_FOLDER
@given(st.data())
def test_any_value_in_the_index_is_read_or_refused(path: Path, data: st.DataObject) -> None:
    original = (path / INDEX).read_bytes()
    try:
        write(path, data.draw(mutations(content(path))))
        refused(lambda: read(path))
    finally:
        (path / INDEX).write_bytes(original)


@KEEPS_FOLDER
@given(mutations(STATE_VALUES))
def test_any_value_in_the_state_is_read_or_refused(path: Path, values: Any) -> None:
    (path / STATE).write_text(json.dumps(values))
    refused(lambda: use(read_state(path, RUN_KEYS)))


@KEEPS_FOLDER
@given(st.data())
@pytest.mark.parametrize("name", [INDEX, STATE])
def test_a_damaged_file_is_read_or_refused(path: Path, name: str, data: st.DataObject) -> None:
    original = (path / name).read_bytes()
    content = data.draw(damaged(original.strip()))
    try:
        (path / name).write_bytes(content)
        refused(lambda: read(path), must=not (name == INDEX and means_the_same(content, original)))
    finally:
        (path / name).write_bytes(original)


def means_the_same(content: bytes, original: bytes) -> bool:
    """Whether two files hold the same JSON: a flipped bit may make `1E-08` of `1e-08`."""
    try:
        same: bool = json.loads(content) == json.loads(original)
    except ValueError:
        return False
    return same


def use(state: dict[str, Any]) -> None:
    """Count on from a state, as a resumed run does; a value of another kind ends it."""
    sum([state["step"], state["tokens"], state["data"]["next_sample"], state["train_time_s"]])
    sum(state.get("guard") or ())
    "".join([state["stream_hash"], state["data"]["fingerprint"]])
    for held in state.get("observers") or ():
        dict(held or {})


def refused(act: Callable[[], Any], *, must: bool = False) -> None:
    """Act; an error must be one for users, in one line that is not too long."""
    try:
        act()
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 600, str(error)
    else:
        assert not must
