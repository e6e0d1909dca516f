"""The commands: what they say, and what goes along beside the weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from data.tokenization.tokenizer import byte_tokenizer
from moe.config.model import ModelConfig
from moe.convert.hugging_face import checkpoint_model
from moe.convert.megatron.arguments import arguments_of
from moe.convert.megatron.dist_directory import DistDirectory
from moe.convert.megatron.dist_writer import DistWriter
from moe.convert.megatron.from_megatron import from_megatron
from moe.convert.megatron.model_settings import model_of
from moe.convert.megatron.settings import of_arguments
from moe.convert.megatron.to_megatron import to_megatron
from moescale import app
from tests.moe.convert.megatron.test_hostile_checkpoints import SMALL
from tests.support.architecture_options import CONFIGS
from tests.support.random_checkpoints import random_checkpoint


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exception is None, result.exception
    return result


def test_commands_convert_and_say_what_they_did(tmp_path: Path) -> None:
    ours = random_checkpoint(tmp_path / "ours", SMALL, "BF16")
    out, back = tmp_path / "megatron", tmp_path / "back"
    first = run("to-megatron", ours, "-o", out, "--json")
    said = json.loads(first.stdout)
    assert said["path"] == str(out) and said["tensors"] == 17
    assert first.stderr == f"moe: {out}: no tokenizer is known of it, and none is written\n"
    second = run("from-megatron", out, "-o", back)
    count = f"{said['parameters']:,}"
    assert second.stdout == f"{back}: tensors 10, parameters {count}, left behind 15\n"
    assert second.stderr == f"moe: {back}: 15 of extra state left behind\n"
    again = CliRunner().invoke(app, ["convert", "from-megatron", str(out), "-o", str(back)])
    assert "exists already: remove it or choose another name" in str(again.exception)
    third = run("from-megatron", out, "-o", tmp_path / "given", "--model", ours / "model.toml",
                "--json")  # fmt: skip
    assert json.loads(third.stdout)["parameters"] == said["parameters"]


def test_a_tokenizer_goes_along(tmp_path: Path) -> None:
    model = SMALL.model_copy(update={"vocab_size": 300})
    ours = random_checkpoint(tmp_path / "ours", model)
    (ours / "hub").mkdir()
    (ours / "hub/tokenizer.json").write_text(byte_tokenizer().hub_text)
    assert to_megatron(ours, tmp_path / "megatron").notes == ()
    files = tmp_path / "megatron/release/tokenizer"
    assert (files / "tokenizer.json").read_text() == byte_tokenizer().hub_text
    from_megatron(tmp_path / "megatron", tmp_path / "back")
    assert (tmp_path / "back/hub/tokenizer.json").read_text() == byte_tokenizer().hub_text


def test_what_is_no_weight_is_counted(tmp_path: Path) -> None:
    ours = random_checkpoint(tmp_path / "ours", SMALL)
    release = to_megatron(ours, tmp_path / "megatron").path / "release"
    source = DistDirectory(release)
    common = torch.load(release / "common.pt", weights_only=False)
    vars(common["args"]).update(hidden_dropout=0.1, mtp_hsm=True, mtp_detach_heads=False)
    (tmp_path / "trained").mkdir()
    with DistWriter(tmp_path / "trained") as target:
        for key, tensor in source.tensors.items():
            target.tensor(key, tensor.shape, (0,) * len(tensor.shape), source.read(key, ()))
        for key in ("optimizer.state.exp_avg.decoder.final_layernorm.weight",
                    "chained_1.optimizer.state.exp_avg_sq.x"):  # fmt: skip
            target.tensor(key, (2,), (0,), torch.ones(2))
        target.object("rng_state/shard_0.0_1.1", [{"random": 1}])
        target.close(common)
    done = from_megatron(tmp_path / "trained", tmp_path / "back")
    assert done.notes == (
        "hidden_dropout = 0.1 left behind: training here has no dropout",
        "mtp_hsm = True left behind: prediction layers here read the depth before them alone",
        "2 of optimizer left behind",
        "1 of random state left behind",
    )
    assert done.left_behind == 3


@pytest.mark.parametrize(
    ("factor", "scaling"), [(1.0, "none"), (40.0, None)], ids=["factor 1", "factor 40"]
)
def test_arguments_without_yarns_original_length(factor: float, scaling: str | None) -> None:
    """Megatron-LM has no argument for it; at factor 1, YaRN changes nothing."""
    given = arguments_of(CONFIGS["latent"]) | {"rope_type": None, "rotary_scaling_factor": factor}
    read: Callable[[], ModelConfig] = lambda: model_of(of_arguments("args", given), 264)  # noqa: E731
    if scaling is None:
        with pytest.raises(ValueError, match="original_max_position_embeddings is missing"):
            read()
    else:
        assert read().rope.scaling == scaling


def test_the_model_stands_in_the_checkpoint(tmp_path: Path) -> None:
    ours = random_checkpoint(tmp_path / "ours", SMALL)
    to_megatron(ours, tmp_path / "megatron")
    back = from_megatron(tmp_path / "megatron/release", tmp_path / "back")
    assert checkpoint_model(back.path) == SMALL.model_copy(
        update={"ffn_hidden_size": None, "head_dim": None}
    )
