"""Of the weights in a folder those are read that transformers reads, and what is not is said."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from moe.convert.hub_config import HubConfig
from moe.convert.hub_directory import HubDirectory
from moe.convert.hub_files import INDEX
from moe.convert.hugging_face import from_hub, to_hub
from moe.convert.weight_files import STATED, WEIGHTS, weight_files
from moe.errors import ConfigError
from moescale import app
from tests.moe.convert.test_wrong_files import Tensors, save, tensors

EMBEDDING = "model.embed_tokens.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
OTHERS = ("consolidated.safetensors", "model.fp16.safetensors", "adapter_model.safetensors")
VARIANT_INDEX = "model.fp16.safetensors.index.json"


def marked(mark: float) -> Tensors:
    """Return a model's tensors that a number in the first tells from others."""
    content = tensors()
    content[EMBEDDING].fill_(mark)
    return content


def put_shards(folder: Path, mark: float) -> Path:
    """Put two shards into a folder, and no index."""
    content = marked(mark)
    norm = {"model.norm.weight": content.pop("model.norm.weight")}
    for name, part in zip(SHARDS, (content, norm), strict=True):
        save_file(part, folder / name, metadata={"format": "pt"})
    return folder


def put_index(folder: Path) -> None:
    """Put the index of such shards into a folder."""
    weights = dict.fromkeys(tensors(), SHARDS[0]) | {"model.norm.weight": SHARDS[1]}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weights}))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model in two shards, without an index."""
    folder = save(tmp_path / "hub", tensors())
    (folder / WEIGHTS).unlink()
    return put_shards(folder, 1)


def read_mark(folder: Path) -> float:
    return float(HubDirectory(folder).read(EMBEDDING)[0, 0])


@pytest.mark.needs("hub")
@pytest.mark.parametrize("stated", [None, OTHERS[0], INDEX])
@pytest.mark.parametrize("others", [(), OTHERS])
@pytest.mark.parametrize("has", [{WEIGHTS}, {INDEX}, {WEIGHTS, INDEX}])
def test_the_weights_are_those_that_transformers_reads(
    has: set[str], others: tuple[str, ...], stated: str | None, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folder = save(tmp_path / "hub", tensors(), **{STATED: stated})
    (folder / WEIGHTS).unlink()
    for mark, name in enumerate((*has & {WEIGHTS}, *others)):
        save_file(marked(mark), folder / name, metadata={"format": "pt"})
    if INDEX in has:
        put_shards(folder, 9)
        put_index(folder)
    try:
        theirs = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    except (OSError, ValueError):
        assert stated not in {None, *others, *has}
        with pytest.raises(ConfigError, match=f"{stated}: "):
            HubDirectory(folder)
        return
    assert read_mark(folder) == theirs[0, 0].item()


def test_an_index_whose_shards_are_gone_does_not_count_beside_the_weights(tmp_path: Path) -> None:
    folder = save(tmp_path / "hub", marked(3))
    put_index(folder)
    assert read_mark(folder) == 3
    (folder / INDEX).write_text("{")
    assert read_mark(folder) == 3


def test_a_complete_set_of_shards_needs_no_index(sharded: Path) -> None:
    for name in OTHERS:
        save_file(marked(2), sharded / name)
    source = HubDirectory(sharded)
    assert float(source.read(EMBEDDING)[0, 0]) == 1
    assert source.shapes.keys() == tensors().keys()
    assert source.notes == (
        f"the weights are those in {', '.join(SHARDS)}; not read: {', '.join(sorted(OTHERS))}",
    )


@pytest.mark.parametrize(
    ("gone", "added", "message"),
    [
        (SHARDS[0], (), f"{SHARDS[0]} is missing, and no {INDEX} says which are the model's: add"),
        (SHARDS[1], (), f"{SHARDS[1]} is missing"),
        (None, ("model-00001-of-00003.safetensors",), "shards of several sets, such as model-0000"),
        (None, ("model-00003-of-00002.safetensors",), "more shards than the 2 of model-*-of-00002"),
        (None, ("model-2-of-00002.safetensors",), "more shards than the 2 of"),
        (SHARDS[0], (f"model-00001-of-{10**200}.safetensors",), "shards of several sets"),
    ],
)
def test_other_sets_of_shards_are_refused(
    gone: str | None, added: tuple[str, ...], message: str, sharded: Path
) -> None:
    for name in added:
        (sharded / name).write_bytes((sharded / SHARDS[0]).read_bytes())
    if gone:
        (sharded / gone).unlink()
    with pytest.raises(ConfigError) as caught:
        HubDirectory(sharded)
    assert f"{sharded}: {message}" in str(caught.value)


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_alone_are_no_model(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "hub", tensors())
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(ConfigError, match=f"no {WEIGHTS}, .*: {name} is not read as the model: if"):
        HubDirectory(folder)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("adapter_model.bin", "config.json: transformers_weights = 'adapter_model.bin': name a"),
        ("../x.safetensors", "'../x.safetensors' is no plain file name"),
        (f"../{INDEX}", f"'../{INDEX}' is no plain file name"),
        (7, "transformers_weights = 7: wanted a string"),
    ],
)
def test_a_stated_file_is_one_of_the_folder(stated: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        HubDirectory(save(tmp_path / "hub", tensors(), **{STATED: stated}))


def test_what_is_not_read_is_said_and_not_kept(tmp_path: Path) -> None:
    folder = save(
        tmp_path / "hub", tensors(), model_type="llama",
        num_local_experts=None, num_experts_per_tok=None,
    )  # fmt: skip
    at = "model.layers.{}.{}.weight"
    dense = {name: value for name, value in tensors().items() if "block_sparse_moe" not in name}
    for i in range(2):
        dense |= {at.format(i, f"mlp.{part}_proj"): torch.ones(24, 16) for part in ("gate", "up")}
        dense[at.format(i, "mlp.down_proj")] = torch.ones(16, 24)
    save_file(dense, folder / WEIGHTS)
    put_index(folder)
    for name in (VARIANT_INDEX, "adapter_config.json", "pytorch_model.bin.index.json"):
        (folder / name).write_text("{}")
    for command in (["from-hf"], ["upcycle", "--experts", "2", "--top-k", "2"]):
        out = tmp_path / command[0]
        done = CliRunner().invoke(app, ["convert", *command, str(folder), "-o", str(out)])
        assert (
            f"moe: {folder}: the weights are those in {WEIGHTS}; not read: {VARIANT_INDEX},"
            f" {INDEX}\n" in done.stderr
        )
        kept = {path.name for path in (out / "hub").glob("*")}
        assert kept <= {"config.json", "generation_config.json"}


def test_an_export_has_its_own_index_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe.convert.hugging_face.FILE_BYTES", 2000)
    from_hub(save(tmp_path / "hub", tensors()), tmp_path / "out")
    for name in (INDEX, "adapter_config.json"):  # as older conversions may have kept
        (tmp_path / "out/hub" / name).write_text("{}")
    to_hub(tmp_path / "out", tmp_path / "back")
    shards = {path.name for path in (tmp_path / "back").glob("*.safetensors")}
    index = json.loads((tmp_path / "back" / INDEX).read_text())
    assert {*index["weight_map"].values()} == shards
    assert not (tmp_path / "back/adapter_config.json").exists()
    assert set().union(*(load_file(tmp_path / "back" / name) for name in shards)) == {*tensors()}


NAMES = st.sampled_from([WEIGHTS, INDEX, VARIANT_INDEX, *OTHERS, *SHARDS, "pytorch_model.bin"])
ODD_NAMES = st.builds("model-{}-of-{}.safetensors".format, *[st.integers(0, 10**80)] * 2)


def test_of_any_files_some_are_read_or_one_line_says_why_not(tmp_path: Path) -> None:
    @settings(max_examples=50, deadline=None, database=None, derandomize=True)
    @given(st.sets(NAMES | ODD_NAMES | st.just("a\nb.safetensors"), max_size=6))
    def check(names: set[str]) -> None:
        for path in tmp_path.iterdir():
            path.unlink()
        for name in names:
            (tmp_path / name).write_text('{"weight_map": {"a": "model.safetensors"}}')
        try:
            files = weight_files(tmp_path, HubConfig("config.json", {}))
        except ConfigError as error:
            assert WEIGHTS not in names
            assert "\n" not in str(error) and len(str(error)) < 1000
            return
        assert WEIGHTS not in names or [path.name for path in files.paths] == [WEIGHTS]
        assert all("\n" not in note for note in files.notes)

    check()
