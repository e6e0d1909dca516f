"""Checkpoints that are damaged, strange or hostile: one line each, and nothing is made."""

import os
import pickle
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from moe.config.model import ModelConfig
from moe.convert.megatron.from_megatron import from_megatron
from moe.convert.megatron.to_megatron import to_megatron
from tests.support.architecture_options import DENSE, MOE
from tests.support.random_checkpoints import random_checkpoint
from tests.support.refused_megatron import Touch, refused

SMALL = ModelConfig.model_validate(
    DENSE | {"num_layers": 2, "vocab_size": 20, "moe": MOE | {"num_experts": 2}}
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written")
    return to_megatron(random_checkpoint(root / "ours", SMALL), root / "megatron").path


@pytest.fixture
def source(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "megatron"))


def index_of(source: Path) -> Any:
    return pickle.loads((source / "release/.metadata").read_bytes())


def change_index(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        index = index_of(source)
        change(index)
        (source / "release/.metadata").write_bytes(pickle.dumps(index))

    return spoil


QKV = "decoder.layers.self_attention.linear_qkv.weight"
FC1 = "decoder.layers.mlp.experts.experts.linear_fc1.weight"
EXTRA_STATE = "decoder.layers.self_attention.linear_qkv._extra_state/shard_0_2"


def place(index: Any, **values: Any) -> None:
    """Change where the first part of a tensor lies."""
    at = next(at for at in index.storage_data if at.fqn == QKV)
    for key, value in values.items():
        setattr(index.storage_data[at], key, value)


def place_where(index: Any, name: str) -> None:
    """Say that the first part of a tensor lies where something else does."""
    other = next(info for at, info in index.storage_data.items() if at.fqn == name)
    place(index, offset=other.offset, length=other.length)


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda source: (source / "release" / name).write_bytes(content) and None


def replace(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        path = source / "release" / name
        path.rename(source / "outside")
        make(path)

    return spoil


def link(path: Path) -> None:
    path.symlink_to("../outside")


def evil(name: str) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        state = {"args": Namespace(num_layers=Touch(source / "touched"))}
        if name == "common.pt":
            torch.save(state, source / "release" / name)
        else:
            (source / "release" / name).write_bytes(pickle.dumps(Touch(source / "touched")))

    return spoil


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "evil arguments": (evil("common.pt"), "common.pt: holds the class posix.system"),
    "evil index": (evil(".metadata"), ".metadata: holds the class posix.system"),
    "no index": (lambda s: (s / "release/.metadata").unlink(), ".metadata: missing or damaged"),
    "index that is a link": (replace(".metadata", link), ".metadata: missing or damaged: a sym"),
    "index that is a pipe": (replace(".metadata", os.mkfifo), ".metadata: missing or damaged: not"),
    "numbers behind a link": (replace("__0_0.distcp", link), "__0_0.distcp: missing or damaged: a"),
    "numbers from a pipe": (replace("__0_0.distcp", os.mkfifo), "__0_0.distcp: missing or damaged"),
    "arguments behind a link": (replace("common.pt", link), "common.pt: missing or damaged: a sym"),
    "no arguments": (lambda s: (s / "release/common.pt").unlink(), "neither run_config.yaml nor"),
    "another format": (write("metadata.json", b'{"sharded_backend": "zarr"}'), "'zarr', and only"),
    "no format": (write("metadata.json", b"[]"), "sharded_backend = 'None'"),
    "a list for an index": (write(".metadata", pickle.dumps([1])), "damaged: no Metadata"),
    "a state of text": (write("common.pt", b""), "common.pt: missing or damaged"),
    "no iteration": (
        lambda s: (s / "latest_checkpointed_iteration.txt").write_text("../x"),
        "'../x' is no iteration",
    ),
    "path in the index": (
        change_index(lambda i: place(i, relative_path="../outside")), "not the plain name of a",
    ),
    "part beyond the file": (
        change_index(lambda i: place(i, offset=1 << 40)), "the file ends before",
    ),
    "negative offset": (change_index(lambda i: place(i, offset=-5)), "a part without place"),
    "part of another tensor": (
        change_index(lambda i: place_where(i, "output_layer.weight")), "and the index says F32",
    ),
    "state for a tensor": (
        change_index(lambda i: place_where(i, EXTRA_STATE)), "no tensor where a weight should be",
    ),
    "cut part": (change_index(lambda i: place(i, length=50)), "no archive of torch.save"),
    "compressed parts": (
        change_index(lambda i: place(i, transform_descriptors=["zstd"])), "parts that were",
    ),
    "missing part": (
        change_index(lambda i: i.state_dict_metadata[QKV].chunks.pop()), "are missing, or overlap",
    ),
    "overlapping parts": (
        change_index(lambda i: i.state_dict_metadata[QKV].chunks.append(
            i.state_dict_metadata[QKV].chunks[0])), "are missing, or overlap",
    ),
    "part without a place": (
        change_index(lambda i: i.storage_data.clear()), ".metadata: missing or damaged",
    ),
    "missing tensor": (
        change_index(lambda i: i.state_dict_metadata.pop(QKV)),
        "missing: decoder.layers.0.self_attention.linear_qkv.weight",
    ),
    "unknown tensor": (
        change_index(lambda i: i.state_dict_metadata.update({
            "decoder.layers.adapter.weight": i.state_dict_metadata["output_layer.weight"]})
            or i.storage_data.update({
                type(at)("decoder.layers.adapter.weight", at.offset): info
                for at, info in [*i.storage_data.items()] if at.fqn == "output_layer.weight"})),
        "unknown: decoder.layers.adapter.weight",
    ),
    "misshapen tensor": (
        change_index(
            lambda i: setattr(i.state_dict_metadata[QKV], "size", torch.Size([3, 64, 32]))
        ),
        "misshapen: decoder.layers.self_attention.linear_qkv.weight [3, 64, 32], wanted",
    ),
    "quantized tensor": (
        change_index(lambda i: setattr(
            i.state_dict_metadata[FC1].properties, "dtype", torch.float8_e4m3fn)),
        "quantized: decoder.layers.mlp.experts.experts.linear_fc1.weight torch.float8_e4m3fn",
    ),
    "name of two lines": (
        change_index(lambda i: i.state_dict_metadata.update({"a\nb": 1})), "a key that is no name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_checkpoint_is_one_line(kind: str, source: Path) -> None:
    spoil, message = SPOILED[kind]
    spoil(source)
    assert message in refused(source)
    assert not (source / "touched").exists()


DEEP = b")" + b"\x85" * 300_000
"""A tuple in a tuple and so on: to hash or to print it overflows the stack."""


@pytest.mark.parametrize("where", ["fqn", "relative_path", "dtype", "size", "key"])
def test_nesting_in_the_index_ends_no_process(where: str, source: Path) -> None:
    marker = "deep" * 10

    def change(index: Any) -> None:
        tensor = index.state_dict_metadata[QKV]
        if where == "fqn":
            at = next(at for at in index.storage_data if at.fqn == QKV)
            object.__setattr__(at, "fqn", marker)
        elif where == "relative_path":
            place(index, relative_path=marker)
        elif where == "dtype":
            tensor.properties = marker
        elif where == "size":
            tensor.size = marker
        else:
            index.state_dict_metadata[marker] = tensor

    change_index(change)(source)
    path = source / "release/.metadata"
    content = path.read_bytes()
    for text in (b"\x8c\x28" + marker.encode(), b"X\x28\x00\x00\x00" + marker.encode()):
        content = content.replace(text, DEEP)
    path.write_bytes(content)
    assert ".metadata: " in refused(source) and marker not in refused(source)


def test_a_tensor_that_is_code_is_refused_by_its_class(source: Path) -> None:
    """Numbers of classes beyond plain tensors, as FP8 parameters, are not guessed at."""
    path = source / "release/__0_0.distcp"
    index = index_of(source)
    at = next(at for at in index.storage_data if at.fqn == QKV)
    torch.save(Touch(source / "touched"), path.with_name("evil.distcp"))
    length = path.with_name("evil.distcp").stat().st_size
    change_index(lambda i: place(i, relative_path="evil.distcp", offset=0, length=length))(source)
    assert "evil.distcp" in (line := refused(source)) and "class posix.system" in line
    torch.save(torch.zeros(1, 4, 4).to_sparse(), path.with_name("evil.distcp"))
    length = path.with_name("evil.distcp").stat().st_size
    change_index(lambda i: place(i, relative_path="evil.distcp", offset=0, length=length))(source)
    assert "_rebuild_sparse_tensor" in refused(source)
    assert at.fqn == QKV and not (source / "touched").exists()


def test_legacy_checkpoints_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "megatron/iter_0000010/mp_rank_00").mkdir(parents=True)
    (tmp_path / "megatron/latest_checkpointed_iteration.txt").write_text("10\n")
    assert "mp_rank_00/model_optim_rng.pt: missing or damaged" in refused(tmp_path / "megatron")
    shutil.rmtree(tmp_path / "megatron/iter_0000010/mp_rank_00")
    assert "no metadata.json of a torch_dist checkpoint" in refused(tmp_path / "megatron")


def test_the_newest_iteration_is_taken(written: Path, tmp_path: Path) -> None:
    root = tmp_path / "megatron"
    for iteration in (9, 10_000_000):
        shutil.copytree(written / "release", root / f"iter_{iteration:07d}")
    (root / "iter_0000009/.metadata").unlink()
    assert from_megatron(root, tmp_path / "newest").tensors > 0
    (root / "latest_checkpointed_iteration.txt").write_text("9")
    assert "iter_0000009/.metadata" in refused(root)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_byte_changed_is_one_line_or_harmless(written: Path, tmp_path: Path, data: Any) -> None:
    name = data.draw(st.sampled_from([".metadata", "common.pt", "__0_0.distcp"]))
    source = tmp_path / "megatron"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(written, source)
    content = bytearray((source / "release" / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (source / "release" / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    out = tmp_path / "out"
    try:
        from_megatron(source, out)
    except InputError as error:
        assert "\n" not in str(error)
        assert not out.exists()
    shutil.rmtree(out, ignore_errors=True)
