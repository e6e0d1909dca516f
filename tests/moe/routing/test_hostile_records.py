"""A routing record that somebody else made or that was damaged is refused in one line."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from moe.errors import ConfigError
from moe.routing.replay import RoutingRecord, replaying

EXPERTS = torch.zeros(4, 2, dtype=torch.int16)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"1.0": EXPERTS.float()}, "tensor 1.0 holds no experts"),
        ({"1.0": EXPERTS[0].clone()}, "tensor 1.0 holds no experts"),
        ({"1.0": EXPERTS - 1}, "tensor 1.0 holds no experts"),
        ({"1.0": EXPERTS, "1.2": EXPERTS.clone()}, "no record of routing decisions: 1"),
        ({"one": EXPERTS}, "no record of routing decisions"),
        ({"1.0.0": EXPERTS}, "no record of routing decisions"),
    ],
)
def test_what_is_no_record_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "r", metadata={"about": ""})
    with pytest.raises(ConfigError, match=message) as refused:
        RoutingRecord.load(tmp_path / "r")
    assert len(str(refused.value).splitlines()) == 1


def test_a_pipe_is_no_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r")
    with pytest.raises(ConfigError, match="r: no record of routing decisions: not a regular file"):
        RoutingRecord.load(tmp_path / "r")


def test_experts_that_the_model_has_not_are_refused() -> None:
    router = SimpleNamespace(layer_number=1, rule=SimpleNamespace(num_experts=2))
    layer = SimpleNamespace(mlp=SimpleNamespace(router=router))
    chunk = SimpleNamespace(decoder=SimpleNamespace(layers=[layer]))
    record = RoutingRecord({1: [EXPERTS + 2]})
    with (
        pytest.raises(ConfigError, match="has expert 2 in layer 1, the model only 0 to 1"),
        replaying([chunk], record),
    ):
        pass
