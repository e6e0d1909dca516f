"""A routing record that somebody else made or that was damaged is refused in one line."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from moe.errors import ConfigError
from moe.routing.record import RoutingRecord
from moe.routing.replay import replaying
from tests.support.routing_recordings import origin, write_recording

EXPERTS = torch.tensor([[0, 1], [7, 3]], dtype=torch.uint8)
ABOUT = json.loads(origin().model_dump_json())


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError, match="no record of routing decisions") as refused:
        RoutingRecord.load(path)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"1.0": EXPERTS.float()}, "a tensor is float32 [2, 2], and not 2 of 8 experts"),
        ({"1.0": EXPERTS.short()}, "a tensor is int16"),
        ({"1.0": EXPERTS[0].clone()}, "a tensor is uint8 [2]"),
        ({"1.0": EXPERTS[:, :1].clone()}, "a tensor is uint8 [2, 1]"),
        ({"1.0": EXPERTS + 1}, "an expert that is none of 8"),
        ({"1.0": EXPERTS * 0}, "to one expert twice"),
        ({"1.0": EXPERTS, "1.2": EXPERTS.clone()}, "a pass of layer 1 is missing"),
        ({"1.0": EXPERTS, "2.0": EXPERTS[:1].clone()}, "layer 2 has other passes"),
        ({"1.0": EXPERTS[:0].clone()}, "it holds no token"),
        ({}, "it holds no token"),
        ({"one": EXPERTS}, "names no layer and pass"),
        ({"0.0": EXPERTS}, "names no layer and pass"),
        ({"01.0": EXPERTS}, "names no layer and pass"),
        ({"1.0.0": EXPERTS}, "names no layer and pass"),
        ({f"1.{'9' * 5000}": EXPERTS}, "names no layer and pass"),
    ],
)
def test_what_is_no_record_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "r", metadata={"moescale.routing": json.dumps(ABOUT)})
    assert message in refusal(tmp_path / "r")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(ABOUT | {"format": 3}), "format: "),
        (json.dumps(ABOUT | {"num_experts": True}), "num_experts: "),
        (json.dumps(ABOUT | {"more": 1}), "more: "),
        ("[]", "its description: "),
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "no record of routing decisions"),
    ],
)
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    save_file({"1.0": EXPERTS}, tmp_path / "r", metadata={"moescale.routing": text})
    assert message in refusal(tmp_path / "r")


def test_a_file_without_description_is_refused(tmp_path: Path) -> None:
    save_file({"1.0": EXPERTS}, tmp_path / "r", metadata={"about": ""})
    assert "record it with moe eval --record-routing" in refusal(tmp_path / "r")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_recording(tmp_path / "whole").read_bytes()
    for length in (0, 7, 8, 40, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        refusal(tmp_path / "cut")


def test_a_pipe_is_no_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r")
    assert refusal(tmp_path / "r").endswith("not a regular file")


@pytest.mark.parametrize(("num_experts", "dtype"), [(256, "U8"), (257, "I16"), (40_000, "I32")])
def test_a_record_is_read_as_it_was_written(tmp_path: Path, num_experts: int, dtype: str) -> None:
    passes = {3: [torch.tensor([[num_experts - 1, 0]], dtype=torch.int32)]}
    written = RoutingRecord(passes, origin(num_experts=num_experts))
    written.save(tmp_path / "r")
    assert f'"dtype":"{dtype}"'.encode() in (tmp_path / "r").read_bytes()
    read = RoutingRecord.load(tmp_path / "r")
    assert read.origin == written.origin
    assert {layer: [p.tolist() for p in of] for layer, of in read.passes.items()} == {
        3: [[[num_experts - 1, 0]]]
    }


def test_experts_that_the_model_has_not_are_refused() -> None:
    router: Any = SimpleNamespace(layer_number=1, rule=SimpleNamespace(num_experts=2))
    layer = SimpleNamespace(mlp=SimpleNamespace(router=router))
    chunk = SimpleNamespace(decoder=SimpleNamespace(layers=[layer]))
    record = RoutingRecord({1: [torch.full((4, 2), 2)]})
    with (
        pytest.raises(ConfigError, match="has expert 2 in layer 1, the model only 0 to 1"),
        replaying([chunk], record),
    ):
        pass
