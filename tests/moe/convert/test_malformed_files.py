"""Malformed or hostile hub files: one line each, nothing outside the folder is opened."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from data.errors import InputError
from moe.convert.hub_config import HubConfig
from moe.convert.hub_directory import HubDirectory
from moe.convert.hugging_face import from_hub, to_hub
from moe.convert.registry import family_of, known_family
from moe.errors import ConfigError
from moe.storage.safetensors_io import TensorReader
from tests.moe.convert.test_class_defaults import written
from tests.moe.convert.test_wrong_files import CONFIG, save, tensors
from tests.support.hf_reference_models import MODELS

INDEX = "model.safetensors.index.json"
DEEP = "[" * 100_000 + "]" * 100_000


def refused(folder: Path) -> str:
    """Return the one line with which a folder is refused."""
    with pytest.raises(InputError) as caught:
        from_hub(folder, folder.with_name("out"))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1000
    return line


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return save(tmp_path / "hub", tensors())


@pytest.mark.parametrize("name", ["config.json", INDEX])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "wanted a JSON object, found a list"),
        ("null", "wanted a JSON object"),
        (DEEP, "not valid JSON: nested deeper than 64 levels"),
        (
            f'{{"weight_map": {"[" * 70 + "]" * 70}}}',
            "not valid JSON: nested deeper than 64 levels",
        ),
        ("{" * 9, "not valid JSON"),
        (f'{{"a": {"1" * 5000}}}', "not valid JSON"),
    ],
    ids=["list", "null", "deep", "deeper", "torn", "digits"],
)
def test_files_that_are_no_objects(name: str, text: str, message: str, hub: Path) -> None:
    if name == INDEX:
        (hub / "model.safetensors").unlink()
    (hub / name).write_text(text)
    assert f"{name}: {message}" in refused(hub)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "weight_map is missing"),
        ({"weight_map": {}}, "names no weights"),
        ({"weight_map": None}, "names no weights"),
        ({"weight_map": []}, "weight_map = []: wanted an object"),
        ({"weight_map": {"a": ["b"]}}, "['b'] is no plain file name"),
        ({"weight_map": {"a": None}}, "None is no plain file name"),
        ({"weight_map": {"a": "../secret.safetensors"}}, "'../secret.safetensors' is no plain"),
        ({"weight_map": {"a": "/etc/passwd"}}, "'/etc/passwd' is no plain file name"),
        ({"weight_map": {"a": ".."}}, "'..' is no plain file name"),
        ({"weight_map": {"a": "link.safetensors"}}, "leads out of its folder"),
        ({"weight_map": {"a": "pipe.safetensors"}}, "not a regular file"),
        ({"weight_map": {"a": "zero.safetensors"}}, "leads out of its folder"),
        ({"weight_map": {"a": "circle.safetensors"}}, "circle.safetensors: "),
    ],
)
def test_an_index_names_plain_files_of_its_folder(
    index: dict[str, Any], message: str, hub: Path
) -> None:
    (hub / "model.safetensors").rename(hub.parent / "secret.safetensors")
    (hub / "link.safetensors").symlink_to("../secret.safetensors")
    (hub / "zero.safetensors").symlink_to("/dev/zero")
    (hub / "circle.safetensors").symlink_to("circle.safetensors")
    os.mkfifo(hub / "pipe.safetensors")
    (hub / INDEX).write_text(json.dumps(index))
    assert message in refused(hub)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", INDEX, "model.safetensors"])
def test_pipes_and_links_outside_are_not_opened(name: str, hub: Path) -> None:
    (hub / name).unlink(missing_ok=True)
    os.mkfifo(hub / name)
    assert f"{name}: not a regular file" in refused(hub)
    (hub / name).unlink()
    (hub / name).symlink_to("/etc/hostname")
    assert f"{name}: a link that leads out of its folder, to /etc/hostname" in refused(hub)


def test_a_snapshot_of_the_download_cache_converts(hub: Path, tmp_path: Path) -> None:
    """Its files are links into the `blobs` beside `snapshots`."""
    (hub / "tokenizer.json").write_text("{}")
    blobs, snapshot = tmp_path / "models--x/blobs", tmp_path / "models--x/snapshots/main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(hub.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    from_hub(snapshot, tmp_path / "out")
    assert (tmp_path / "out/hub/tokenizer.json").read_text() == "{}"


def test_a_folder_where_a_small_file_would_be_is_left(hub: Path, tmp_path: Path) -> None:
    (hub / "tokenizer").mkdir()
    from_hub(hub, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/hub").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000: wanted a number from"),
        ({"num_hidden_layers": 5000}, "= 5000, but the files have tensors of 2 layers"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers = '3': wanted a whole number"),
        ({"num_hidden_layers": 3.0}, "num_hidden_layers = 3.0: wanted a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers = True: wanted a whole number"),
        ({"num_attention_heads": 10**9}, "num_heads = 1000000000: input should be less than"),
        ({"num_local_experts": 10**9}, "num_experts = 1000000000: input should be less than"),
        ({"vocab_size": 10**400}, "vocab_size is an integer of more than 128 bits"),
        ({"rms_norm_eps": float("nan")}, "NaN is not a JSON number"),
        ({"rope_theta": float("inf")}, "Infinity is not a JSON number"),
        ({"rope_scaling": "yarn"}, "rope_scaling = 'yarn': wanted an object"),
        ({"rope_scaling": {"full_attention": {"factor": 2.0}}}, "one for all layers"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, "rope_type = ['yarn']: wanted a string"),
        ({"model_type": ["mixtral"]}, "model_type = ['mixtral']: wanted a string"),
        ({"num_experts": 3}, "num_local_experts and num_experts mean the same and differ"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no': wanted true or false"),
        (
            {"model_type": "qwen3_moe", "moe_intermediate_size": 8, "decoder_sparse_step": 0},
            "decoder_sparse_step = 0: wanted a number from 1",
        ),
        (
            {"model_type": "qwen3_moe", "moe_intermediate_size": 8, "mlp_only_layers": 1},
            "mlp_only_layers = 1: wanted a list of int",
        ),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refused(save(tmp_path / "hub", tensors(), **changes))


def _header(path: Path, change: Callable[[dict[str, Any]], Any] | str | bytes) -> Path:
    """Write a file of two tensors with a changed header."""
    values: dict[str, Any] = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [1, 2], "data_offsets": [8, 16]},
    }
    if callable(change):
        change(values)
        change = json.dumps(values)
    text = change.encode() if isinstance(change, str) else change
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[]", "its header is no JSON object"),
        (DEEP, "its header is nested deeply"),
        (b"\xff\xff", "missing or damaged"),
        ('{"a": 1, "a": 2}', "a name is twice in its header"),
        (lambda h: h.update(a=7), "tensor a has the unknown number format None"),
        (lambda h: h["a"].update(dtype="F31"), "tensor a has the unknown number format 'F31'"),
        (lambda h: h["a"].update(dtype=["F32"]), "tensor a has the unknown number format"),
        (lambda h: h["a"].update(shape=[-2]), "tensor a has no proper shape and offsets"),
        (lambda h: h["a"].update(shape=[-1, -2]), "tensor a has no proper shape and offsets"),
        (lambda h: h["a"].update(shape="2"), "tensor a has no proper shape and offsets"),
        (lambda h: h["a"].update(shape=[2.0]), "tensor a has no proper shape and offsets"),
        (lambda h: h["a"].update(shape=[1] * 65), "tensor a has no proper shape and offsets"),
        (lambda h: h["a"].update(data_offsets=[0]), "tensor a has no proper shape and offsets"),
        (lambda h: h["a"].update(data_offsets=[8, 0]), "tensor a has not the size of its shape"),
        (lambda h: h["a"].update(shape=[3]), "tensor a has not the size of its shape"),
        (lambda h: h["b"].update(data_offsets=[4, 12]), "tensor b does not begin where the one"),
        (lambda h: h["b"].update(data_offsets=[0, 8]), "tensor b does not begin where the one"),
        (lambda h: h.pop("b"), "8 bytes of it belong to no tensor"),
        (lambda h: h["b"].update(shape=[3], data_offsets=[8, 20]), "tensor b reaches over its end"),
    ],
)
def test_headers_are_checked(
    change: Callable[[dict[str, Any]], Any] | str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="missing or damaged") as caught:
        TensorReader(_header(tmp_path / "x.safetensors", change))
    assert message in str(caught.value)


def test_an_unchanged_header_is_read(tmp_path: Path) -> None:
    reader = TensorReader(_header(tmp_path / "x.safetensors", lambda _: None))
    assert reader.shapes == {"a": (2,), "b": (1, 2)}


def test_buffers_of_integers_are_unknown_and_not_quantized(tmp_path: Path) -> None:
    import torch

    content = tensors() | {"model.position_ids": torch.arange(4)}
    assert "tensors unknown: model.position_ids" in refused(save(tmp_path / "hub", content))


def test_the_bias_of_a_router_stays_fp32(tmp_path: Path) -> None:
    import torch

    hub = tmp_path / "hub"
    hub.mkdir()
    sizes = {"model_type": "minimax_m2", "head_dim": 8, "rotary_dim": 8}
    (hub / "config.json").write_text(json.dumps(CONFIG | sizes))
    bias = torch.randn(2) / 3
    content = tensors()
    for i in range(2):
        at = f"model.layers.{i}"
        content[f"{at}.block_sparse_moe.e_score_correction_bias"] = bias
        content[f"{at}.self_attn.q_norm.weight"] = torch.ones(16)
        content[f"{at}.self_attn.k_norm.weight"] = torch.ones(8)
    save_file({name: tensor.clone() for name, tensor in content.items()}, hub / "model.safetensors")
    from_hub(hub, tmp_path / "ours")
    to_hub(tmp_path / "ours", tmp_path / "back", dtype="BF16")
    back = load_file(tmp_path / "back/model.safetensors")
    kept = back.pop("model.layers.1.block_sparse_moe.e_score_correction_bias")
    assert torch.equal(kept, bias)
    assert {tensor.dtype for name, tensor in back.items() if "e_score" not in name} == {
        torch.bfloat16
    }


def test_more_chat_templates_come_back(hub: Path, tmp_path: Path) -> None:
    (hub / "additional_chat_templates").mkdir()
    (hub / "additional_chat_templates/tool_use.jinja").write_text("{{ tools }}")
    from_hub(hub, tmp_path / "ours")
    to_hub(tmp_path / "ours", tmp_path / "back")
    back = tmp_path / "back/additional_chat_templates/tool_use.jinja"
    assert back.read_text() == "{{ tools }}"


def test_a_name_that_transformers_does_not_know_goes_back_as_what_it_computes(
    tmp_path: Path,
) -> None:
    from_hub(save(tmp_path / "hub", tensors()), tmp_path / "ours")
    kept = tmp_path / "ours/hub/config.json"
    kept.write_text(json.dumps(CONFIG | {"model_type": "mixtral_of_mine"}))
    assert to_hub(tmp_path / "ours", tmp_path / "back").family == "mixtral"
    assert known_family("kimi_k2") == "deepseek_v3"
    kept.write_text("[]")
    with pytest.raises(ConfigError, match="config.json: wanted a JSON object"):
        to_hub(tmp_path / "ours", tmp_path / "again")


def test_keys_of_training_alone_come_back(tmp_path: Path) -> None:
    kept = {"attention_dropout": 0.1, "output_router_logits": True, "router_jitter_noise": 0.2}
    from_hub(save(tmp_path / "hub", tensors(), **kept), tmp_path / "ours")
    to_hub(tmp_path / "ours", tmp_path / "back")
    values = json.loads((tmp_path / "back/config.json").read_text())
    assert {key: values[key] for key in kept} == kept


EXAMPLES = 25
SCALARS = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(10**12) | st.text(max_size=4)
)
LISTS = st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)
JSON = SCALARS | LISTS | st.lists(LISTS, max_size=2)


def read_or_refused_in_one_line(read: Callable[[], Any]) -> None:
    try:
        read()
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


@pytest.mark.needs("hub")
@pytest.mark.parametrize("kind", MODELS)
def test_any_json_in_place_of_any_value(kind: str) -> None:
    full = written(kind)
    rope = full["rope_parameters"]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(st.sampled_from(sorted(full)) | st.sampled_from([*rope, "attention_factor"]), JSON)
    def check(key: str, value: Any) -> None:
        changes = {key: value} if key in full else {"rope_parameters": rope | {key: value}}
        config = HubConfig("config.json", full | changes)
        read_or_refused_in_one_line(lambda: family_of(config).model(config))

    check()


def test_any_json_in_place_of_an_index(hub: Path) -> None:
    (hub / "model.safetensors").rename(hub / "a.safetensors")

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @given(JSON, st.integers(0, 2))
    def check(value: Any, level: int) -> None:
        index = [value, {"weight_map": value}, {"weight_map": {"a": value}}][level]
        (hub / INDEX).write_text(json.dumps(index))
        read_or_refused_in_one_line(lambda: HubDirectory(hub))

    check()
