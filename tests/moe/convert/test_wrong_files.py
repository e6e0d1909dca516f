"""Wrong files are refused in one line that names what is wrong; nothing is half-written."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from data.errors import DataError
from moe.checkpoint.index import read_index, verify_files
from moe.convert.hugging_face import from_hub, to_hub
from moe.errors import ConfigError, StorageError
from moescale import app

LAYERS, HIDDEN, VOCABULARY = 2, 16, 32
CONFIG: dict[str, Any] = {
    "model_type": "mixtral", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCABULARY,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "intermediate_size": 24,
    "num_local_experts": 2, "num_experts_per_tok": 2,
}  # fmt: skip
Tensors = dict[str, torch.Tensor]


def tensors() -> Tensors:
    """Return the tensors of a Mixtral, by the names on its card."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for part, rows in (("q", 16), ("k", 8), ("v", 8), ("o", 16)):
            shapes[f"{at}.self_attn.{part}_proj.weight"] = (rows, HIDDEN)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{norm}.weight"] = (HIDDEN,)
        shapes[f"{at}.block_sparse_moe.gate.weight"] = (2, HIDDEN)
        for e in range(2):
            experts = f"{at}.block_sparse_moe.experts.{e}"
            shapes[f"{experts}.w1.weight"] = shapes[f"{experts}.w3.weight"] = (24, HIDDEN)
            shapes[f"{experts}.w2.weight"] = (HIDDEN, 24)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def save(folder: Path, content: Tensors, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: v for key, v in (CONFIG | changes).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(values))
    save_file(content, folder / "model.safetensors")
    return folder


EXPERT = "model.layers.1.block_sparse_moe.experts.1.w2.weight"
DEQUANTISE = "the weights are quantized .*: de-quantize them first"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop(EXPERT), f"tensors missing: {EXPERT}$"),
        (lambda t: [t.pop(name) for name in list(t) if "experts" in name], r"\.w1.* and 9 more$"),
        (lambda t: t.update({"extra.weight": torch.ones(1)}), "tensors unknown: extra.weight$"),
        (
            lambda t: t.update({EXPERT: torch.ones(HIDDEN, 23)}),
            rf"tensors misshapen: {EXPERT} \[16, 23\], wanted \[16, 24\]$",
        ),
        (lambda t: t.update({EXPERT: t[EXPERT].to(torch.float8_e4m3fn)}), DEQUANTISE),
        (lambda t: t.update({f"{EXPERT}_scale_inv": torch.ones(1, 1)}), DEQUANTISE),
        (lambda t: t.update({"model.norm.weight": torch.ones(HIDDEN).int()}), DEQUANTISE),
    ],
    ids=["missing", "all-missing", "extra", "misshapen", "fp8", "scales", "integers"],
)
def test_wrong_tensors_are_named(
    spoil: Callable[[Tensors], Any], message: str, tmp_path: Path
) -> None:
    content = tensors()
    spoil(content)
    with pytest.raises(ConfigError, match=message):
        from_hub(save(tmp_path / "hub", content), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "config.json: model_type is missing"),
        ({"model_type": "gpt2"}, "model_type = 'gpt2' is not one of llama, mistral, qwen2"),
        ({"model_type": "qwen3_next"}, "'qwen3_next': three of four layers are gated DeltaNet"),
        ({"num_local_experts": None}, "config.json: num_local_experts is missing"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' cannot be converted: feed-forward networks"),
        ({"rms_norm_eps": 0}, "rms_norm_eps = 0: wanted a number above 0"),
        ({"rope_theta": -1.0}, "rope_theta = -1.0: wanted a number above 0"),
        ({"num_key_value_heads": 3}, "num_heads=2 is not divisible by num_kv_heads=3"),
        ({"rope_scaling": {"type": "dynamic"}}, "rope_type = 'dynamic' cannot be converted"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope: low_freq_factor is miss"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 1.0, "attention_factor": 2.0}},
            "attention_factor = 2.0 cannot be converted",
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "mscale": 1.0}},
            "mscale and mscale_all_dim go together",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5 cannot be converted"),
    ],
)
def test_what_cannot_be_expressed_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        from_hub(save(tmp_path / "hub", tensors(), **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _unpickled(folder: Path) -> None:
    """Put a file there that would end this process if anything unpickled it."""

    class Bomb:
        def __reduce__(self) -> Any:
            return sys.exit, ("unpickled",)

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


def _sharded(folder: Path) -> None:
    """Turn the file into the first of two shards that an index lists."""
    (folder / "model.safetensors").rename(folder / "model-00001.safetensors")
    index = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _sharded_twice(folder: Path) -> None:
    _sharded(folder)
    shutil.copy(folder / "model-00001.safetensors", folder / "model-00002.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_unpickled, "only pickled weights, which are never read here"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights: give a directory with"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x10" * 9), "missing or damaged"),
        (_sharded, "model-00002.safetensors: missing or damaged"),
        (_sharded_twice, "is in two files"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda f: (f / "config.json").unlink(), "config.json: No such file"),
    ],
    ids=["pickle", "none", "damaged", "shard-gone", "twice", "json", "no-config"],
)
def test_wrong_files_are_named(spoil: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "hub", tensors())
    spoil(folder)
    with pytest.raises(ConfigError, match=message):
        from_hub(folder, tmp_path / "out")


def test_a_copy_that_differs_is_refused(tmp_path: Path) -> None:
    tied = save(tmp_path / "tied", tensors(), tie_word_embeddings=True)
    with pytest.raises(ConfigError, match="lm_head.weight is not the same as model.embed_tokens"):
        from_hub(tied, tmp_path / "out")
    content = tensors()
    content["lm_head.weight"] = content["model.embed_tokens.weight"].clone()
    from_hub(save(tmp_path / "same", content, tie_word_embeddings=True), tmp_path / "out")


def test_old_files_may_keep_what_follows_from_the_configuration(tmp_path: Path) -> None:
    content = tensors() | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert from_hub(save(tmp_path / "hub", content), tmp_path / "out").family == "mixtral"


def test_checkpoints_are_checked_on_the_way_out(tmp_path: Path) -> None:
    from_hub(save(tmp_path / "hub", tensors()), tmp_path / "out")
    model = tmp_path / "out" / "model.toml"
    whole = model.read_text()
    model.write_text(whole.replace("vocab_size = 32", "vocab_size = 33"))
    with pytest.raises(ConfigError, match=r"misshapen: embedding.* \[32, 16\], wanted \[33, 16\]"):
        to_hub(tmp_path / "out", tmp_path / "back")
    model.write_text(whole.replace("num_layers = 2", "num_layers = 3"))
    with pytest.raises(ConfigError, match=r"missing: decoder.layers.2"):
        to_hub(tmp_path / "out", tmp_path / "back")
    model.write_text(whole.replace("num_layers = 2", "num_layers = 1"))
    with pytest.raises(ConfigError, match=r"unknown: decoder.layers.1"):
        to_hub(tmp_path / "out", tmp_path / "back")
    model.write_text(whole)
    with pytest.raises(ConfigError, match="there are F64, F32, F16, BF16"):
        to_hub(tmp_path / "out", tmp_path / "back", dtype="F8")
    with pytest.raises(ConfigError, match="--family bert: there are llama"):
        to_hub(tmp_path / "out", tmp_path / "back", family="bert")
    with pytest.raises(ConfigError, match="nearest: a sparse family|olmoe has no"):
        to_hub(tmp_path / "out", tmp_path / "back", family="olmoe")
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        to_hub(tmp_path / "hub", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_commands_convert_and_say_what_they_did(tmp_path: Path) -> None:
    hub = save(tmp_path / "hub", tensors())
    (hub / "tokenizer.json").write_text("{}")
    (hub / "training_args.bin").write_bytes(b"pickled")
    out, back = str(tmp_path / "out"), str(tmp_path / "back")
    run = CliRunner().invoke
    first = json.loads(run(app, ["convert", "from-hf", str(hub), "-o", out, "--json"]).stdout)
    count = sum(tensor.numel() for tensor in tensors().values())
    assert first == {
        "path": out,
        "family": "mixtral",
        "tensors": len(tensors()),
        "parameters": count,
    }
    second = run(app, ["convert", "to-hf", out, "-o", back, "--dtype", "BF16"])
    assert (
        second.stdout == f"{back}: family mixtral, tensors {len(tensors())}, parameters {count:,}\n"
    )
    found = load_file(tmp_path / "back" / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip
    again = run(app, ["convert", "from-hf", str(hub), "-o", out])
    assert "exists already: remove it or choose another name" in str(again.exception)


def test_two_conversions_to_one_place_do_not_meet(tmp_path: Path) -> None:
    hub, out = save(tmp_path / "hub", tensors()), tmp_path / "out"
    refused = []

    def second(_done: int, _total: int) -> None:
        with pytest.raises(DataError, match="another process is building there") as caught:
            from_hub(hub, out)
        refused.append(caught)

    from_hub(hub, out, second)
    verify_files(out)
    assert refused and sorted(path.name for path in tmp_path.iterdir()) == ["hub", "out"]


def test_a_full_disk_is_no_mistake_of_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hub = save(tmp_path / "hub", tensors())
    from_hub(hub, tmp_path / "ours")
    monkeypatch.setattr("moe.convert.hugging_face.TensorWriter", full)
    for convert, source in ((from_hub, hub), (to_hub, tmp_path / "ours")):
        with pytest.raises(StorageError, match="out: No space left on device: make room"):
            convert(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "ours"]


def test_a_checkpoint_removed_meanwhile_is_the_newest_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run" / "checkpoints"
    hub = save(tmp_path / "hub", tensors())
    for step in (1, 2):
        from_hub(hub, run / f"step-0000000{step}")

    def removed(found: Path) -> Any:
        monkeypatch.undo()
        shutil.rmtree(run / "step-00000002")
        return read_index(found)

    monkeypatch.setattr("moe.convert.hugging_face.read_index", removed)
    assert to_hub(tmp_path / "run", tmp_path / "out").family == "mixtral"


SMALL = 56 * 2**20
LIMITED = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from moe.convert.hugging_face import from_hub, to_hub
torch.set_num_threads(1)  # every thread would reserve an arena and a stack
used = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]),) * 2)
folder = Path(sys.argv[1])
from_hub(folder / "hub", folder / "out")
to_hub(folder / "out", folder / "back")
try:
    load_file(folder / "hub" / "model.safetensors")
except Exception:
    sys.exit("converted in pieces")
"""


def _limited(folder: Path) -> str:
    """Convert there and back in SMALL bytes more than the imports, then load all; what it says."""
    command = [sys.executable, "-c", LIMITED, str(folder), str(SMALL)]
    # Else glibc keeps what was freed, now more and now less of it.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    return subprocess.run(
        command, env=environment, check=False, stderr=subprocess.PIPE, text=True
    ).stderr


def test_a_model_larger_than_memory_converts(tmp_path: Path) -> None:
    """Its memory: 56 MiB beside the program; the model: 224 MiB, its largest tensor 8."""
    hidden, inner, experts = 1024, 2048, 4
    sizes = {"hidden_size": hidden, "num_attention_heads": 8, "num_key_value_heads": 8,
             "intermediate_size": inner, "num_local_experts": experts}  # fmt: skip
    names: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,),
        "lm_head.weight": (VOCABULARY, hidden),
    }  # fmt: skip
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            names[f"{at}.{name}.weight"] = (hidden,)
        for part in "qkvo":
            names[f"{at}.self_attn.{part}_proj.weight"] = (hidden, hidden)
        moe = f"{at}.block_sparse_moe"
        names[f"{moe}.gate.weight"] = (experts, hidden)
        for e in range(experts):
            names[f"{moe}.experts.{e}.w1.weight"] = (inner, hidden)
            names[f"{moe}.experts.{e}.w3.weight"] = (inner, hidden)
            names[f"{moe}.experts.{e}.w2.weight"] = (hidden, inner)
    content = {name: torch.randn(shape) for name, shape in names.items()}
    hub = save(tmp_path / "hub", content, **sizes)
    assert (hub / "model.safetensors").stat().st_size > 4 * SMALL
    assert _limited(tmp_path).strip() == "converted in pieces"
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert content.keys() == back.keys()
    assert all(torch.equal(content[name], back[name]) for name in content)
