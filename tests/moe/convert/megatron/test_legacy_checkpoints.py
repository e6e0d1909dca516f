"""Format `torch`, one pickle a rank: ranks joined, and what is damaged, strange or hostile."""

import dataclasses
import os
import pickle
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import InputError
from moe.convert.megatron.from_megatron import from_megatron
from moe.convert.megatron.legacy.agreement import check_places
from moe.convert.megatron.legacy.cuts import share_of
from moe.convert.megatron.legacy.rank_files import Grid, Rank, RankFile
from moe.convert.megatron.legacy.whole_names import whole_name
from moe.storage.safetensors_io import TensorShape
from tests.support.distributed import run_ranks
from tests.support.loaded_logits import logits_of
from tests.support.refused_megatron import Touch, refused

WRITTEN = Path(__file__).parents[1] / "fixtures/megatron_lm_0_19_0_torch"
GROUPED = WRITTEN.with_name(f"{WRITTEN.name}_grouped")
FIRST, SECOND = "mp_rank_00_000_000", "mp_rank_01_000_001"
NAME = "model_optim_rng.pt"
NO_ARCHIVE: Any = SimpleNamespace(checksums=())


@pytest.mark.engine
@pytest.mark.parametrize("written", [WRITTEN, GROUPED], ids=["sequential", "grouped"])
def test_joined_ranks_compute_what_they_did_in_megatron_lm(written: Path, tmp_path: Path) -> None:
    converted = from_megatron(written, tmp_path / "ours")
    assert any("128 rows cut to vocab_size = 120" in note for note in converted.notes)
    [found] = run_ranks(1, logits_of, converted.path)
    np.testing.assert_allclose(found, np.load(written / "logits.npy")[..., :120], atol=5e-6)


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("embedding.word_embeddings.weight", 0), ("output_layer.weight", 0),
        ("decoder.layers.0.self_attention.linear_qkv.weight", 0),
        ("decoder.layers.0.self_attention.linear_qkv.bias", 0),
        ("decoder.layers.0.self_attention.linear_q_up_proj.weight", 0),
        ("decoder.layers.0.self_attention.core_attention.softmax_offset", 0),
        ("decoder.layers.0.self_attention.linear_proj.weight", 1),
        ("decoder.layers.0.mlp.linear_fc2.weight", 1),
        ("decoder.layers.0.self_attention.linear_proj.bias", None),
        ("decoder.layers.0.mlp.linear_fc2.bias", None),
        ("decoder.layers.0.self_attention.linear_qkv.layer_norm_weight", None),
        ("decoder.layers.0.mlp.router.weight", None),
        ("decoder.layers.0.mlp.linear_fc1.layer_norm_weight", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ranks", [1, 3])
def test_shares_of_all_ranks_make_the_whole(name: str, axis: int | None, ranks: int) -> None:
    whole = torch.arange(12 * 6).view(12, 6) if not name.endswith("bias") else torch.arange(12)
    shares = [whole] * ranks if axis is None else list(whole.chunk(ranks, axis))
    assert torch.equal(_joined(name, shares), whole)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_gates_of_all_ranks_come_before_what_they_gate(ranks: int) -> None:
    gate, up = torch.arange(24).view(6, 4), -torch.arange(24).view(6, 4)
    pairs = zip(gate.chunk(ranks), up.chunk(ranks), strict=True)
    shares = [torch.cat(pair) for pair in pairs]
    for name in ("mlp.linear_fc1.weight", "mlp.shared_experts.linear_fc1.weight"):
        assert torch.equal(_joined(f"decoder.layers.0.{name}", shares), torch.cat([gate, up]))


def test_a_gate_without_up_is_refused() -> None:
    with pytest.raises(InputError, match="has no halves for gate and up"):
        share_of("decoder.layers.0.mlp.linear_fc1.weight", (5, 4), 0, 2, {})


def test_down_projections_of_latents_are_whole_or_cut_as_their_rows_say() -> None:
    name, sizes = "decoder.layers.0.self_attention.linear_kv_down_proj.weight", {
        "kv_lora_rank": 4, "qk_pos_emb_head_dim": 2,
    }  # fmt: skip
    assert share_of(name, (6, 5), 1, 2, sizes).whole == (6, 5)
    assert share_of(name, (3, 5), 1, 2, sizes).whole == (6, 5)
    name = name.replace("linear_kv", "linear_q")
    assert share_of(name, (4, 5), 1, 2, {"q_lora_rank": 8}).whole == (8, 5)
    assert share_of(name, (8, 5), 1, 2, {"q_lora_rank": 8}).whole == (8, 5)


def _joined(name: str, shares: list[torch.Tensor]) -> torch.Tensor:
    shape: TensorShape = tuple(shares[0].shape)
    places = [share_of(name, shape, rank, len(shares), {}) for rank in range(len(shares))]
    whole = torch.full(places[0].whole, 99)
    for share, place in zip(shares, places, strict=True):
        for piece in place.pieces:
            ends = zip(piece.offset, piece.shape, strict=True)
            whole[tuple(slice(a, a + n) for a, n in ends)] = share[piece.inside]
    return whole


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("decoder.layers.1.mlp.experts.linear_fc1.weight1",
         "decoder.layers.5.mlp.experts.experts.9.linear_fc1.weight"),
        ("decoder.layers.0.mlp.experts.local_experts.3.linear_fc2.bias",
         "decoder.layers.4.mlp.experts.experts.11.linear_fc2.bias"),
        ("mtp.layers.0.mtp_model_layer.mlp.experts.linear_fc2.weight0",
         "mtp.layers.0.mtp_model_layer.mlp.experts.experts.8.linear_fc2.weight"),
        ("decoder.layers.2.mlp.router.weight", "decoder.layers.6.mlp.router.weight"),
        ("decoder.final_layernorm.weight", "decoder.final_layernorm.weight"),
    ],
)  # fmt: skip
def test_names_are_those_in_the_whole_model(name: str, whole: str) -> None:
    assert whole_name(name, first_layer=4, first_expert=8) == whole


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRITTEN, tmp_path / "megatron"))


def file_of(source: Path, folder: str = FIRST) -> Path:
    return source / "iter_0000007" / folder / NAME


class OfMegatron:
    """Stands for a value of megatron-core's classes, which versions have or have not."""

    def __init__(self, *_: Any) -> None: ...


class WithoutMegatron(pickle.Unpickler):
    """Reads a file of ours, whatever the version of megatron-core."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class."""
        return OfMegatron if module.startswith("megatron.") else super().find_class(module, name)


def change(edit: Callable[[Any], Any], folder: str = FIRST) -> Callable[[Path], None]:
    """Return what changes the content of a rank's file."""
    reader = SimpleNamespace(Unpickler=WithoutMegatron, load=pickle.load, __name__="pickle")

    def spoil(source: Path) -> None:
        path = file_of(source, folder)
        state = torch.load(path, pickle_module=reader, weights_only=False)
        arguments = vars(state["args"])
        for key in [k for k, v in arguments.items() if isinstance(v, OfMegatron)]:
            del arguments[key]
        edit(state)
        torch.save(state, file_of(source, folder))

    return spoil


def argument(key: str, value: Any, folder: str = FIRST) -> Callable[[Path], None]:
    return change(lambda state: setattr(state["args"], key, value), folder)


QKV = "decoder.layers.0.self_attention.linear_qkv.weight"
ROUTER = "decoder.layers.0.mlp.router.weight"
FC1 = "decoder.layers.0.mlp.experts.local_experts.0.linear_fc1.weight"


def weight(key: str, make: Callable[[Any], Any], folder: str = SECOND) -> Callable[[Path], None]:
    def edit(state: Any) -> None:
        state["model"][key] = make(state["model"].get(key))

    return change(edit, folder)


def moved(make: Callable[[Path, Path], Any]) -> Callable[[Path], None]:
    """Return what puts something else in the place of a file, which lies outside."""

    def spoil(source: Path) -> None:
        path = file_of(source, SECOND)
        path.rename(source / "outside")
        make(path, source / "outside")

    return spoil


def code_for_arguments(source: Path) -> None:
    state = {"args": Namespace(num_layers=Touch(source / "touched")), "checkpoint_version": 3.0}
    torch.save(state, file_of(source))


def code_for_a_weight(source: Path) -> None:
    weight(QKV, lambda _: Touch(source / "touched"))(source)


def without_layers(state: Any) -> None:
    for key in [key for key in state["model"] if "layers" in key]:
        del state["model"][key]


def swapped(one: str, other: str) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        first, second = file_of(source, one), file_of(source, other)
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)

    return spoil


FOLDERS = (FIRST, "mp_rank_00_001_000", SECOND, "mp_rank_01_001_001")


def saved_by_one_process(source: Path) -> None:
    """Change all files to what `tools/checkpoint/convert.py` writes."""
    for folder in FOLDERS:
        argument("rank", 0, folder)(source)


def copied(source: Path) -> None:
    shutil.copyfile(file_of(source), file_of(source, SECOND))


def one_process_copied(source: Path) -> None:
    saved_by_one_process(source)
    copied(source)


def in_all(key: str, value: Any) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        for folder in FOLDERS:
            argument(key, value, folder)(source)

    return spoil


def linked(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def pipe_for_the_tracker(source: Path) -> None:
    tracker = source / "latest_checkpointed_iteration.txt"
    tracker.unlink()
    os.mkfifo(tracker)


def renamed_weight(old: str, new: str) -> Callable[[Path], None]:
    return change(lambda state: state["model"].update({new: state["model"].pop(old)}), SECOND)


NINES = "9" * 5000
ARABIC_ZERO = "\N{ARABIC-INDIC DIGIT ZERO}"
SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code for arguments": (code_for_arguments, f"{NAME}: holds the class posix.system"),
    "code for a weight": (code_for_a_weight, f"{NAME}: holds the class posix.system"),
    "no rank": (lambda s: shutil.rmtree(file_of(s, SECOND).parent), f": {SECOND} missing (1"),
    "no file": (lambda s: file_of(s, SECOND).unlink(), "missing or damaged: No such file"),
    "a link": (moved(lambda path, other: path.symlink_to(other)), "missing or damaged: a sym"),
    "a pipe": (moved(lambda path, _: os.mkfifo(path)), "missing or damaged: not"),
    "an empty file": (lambda s: file_of(s).write_bytes(b""), "missing or damaged"),
    "half a file": (
        lambda s: file_of(s).write_bytes(file_of(s).read_bytes()[:5000]), "no archive of",
    ),
    "a folder of no rank": (
        lambda s: file_of(s).parent.with_name("mp_rank_02_000_000").mkdir(),
        "say tensor_model_parallel_size = 2, pipeline_model_parallel_size = 2, expert_model_",
    ),
    "swapped stages": (swapped(FIRST, "mp_rank_00_001_000"), "rank 2 saved it, whose folder is"),
    "swapped ranks": (swapped(FIRST, "mp_rank_01_000_001"), f"folder is not {FIRST}: files were"),
    "a file twice": (copied, f"{SECOND}/{NAME}: rank 0 saved it, whose folder is not {SECOND}"),
    "a file of one process twice": (one_process_copied, f"{SECOND}/{NAME}: the same as "),
    "another iteration": (
        change(lambda state: state.update(iteration=3), SECOND), "iteration = 3, and 7 in",
    ),
    "another model": (
        argument("rotary_base", 123456, SECOND),
        f"{SECOND}/{NAME}: its arguments say rope.theta = 123456.0, and those in",
    ),
    "no flag": (
        in_all("untie_embeddings_and_output_weights", "no"),
        "untie_embeddings_and_output_weights = 'no': wanted true or false",
    ),
    "a layer of many digits": (
        weight(ROUTER.replace("0", NINES), lambda _: torch.ones(2)), "is no name of a tensor",
    ),
    "an expert of many digits": (
        weight(FC1.replace("ts.0", f"ts.{NINES[:900]}"), lambda _: torch.ones(2)),
        "unknown: decoder.layers.0.mlp.experts.local_experts.999999999",
    ),
    "digits of another script": (
        renamed_weight(FC1, FC1.replace("experts.0", f"experts.{ARABIC_ZERO}")),
        f"local_experts.{ARABIC_ZERO}.linear_fc1.weight",
    ),
    "a name that steers a terminal": (
        weight("decoder.\nx\x1b[31m", lambda _: torch.ones(2)),
        r"'decoder.\nx\x1b[31m' is no name of a tensor",
    ),
    "a long name": (weight("x" * 2_000_000, lambda _: torch.ones(2)), "xxx' is no name of a"),
    "a number of many digits": (argument("num_experts", 10**5000), "<a number of 16610 bits>"),
    "a folder that is a link": (
        lambda s: linked(file_of(s, SECOND).parent), f"{SECOND}: a symbolic link",
    ),
    "an iteration that is a link": (
        lambda s: linked(s / "iter_0000007"), "iter_0000007: a symbolic link",
    ),
    "a tokenizer that is a link": (
        lambda s: (s / "iter_0000007/tokenizer").symlink_to("/etc"), "tokenizer: a symbolic link",
    ),
    "a pipe for the tracker": (pipe_for_the_tracker, "latest_checkpointed_iteration.txt: not"),
    "another layout": (argument("pipeline_model_parallel_size", 4, SECOND), "another layout than"),
    "no layout": (argument("tensor_model_parallel_size", "2"), "tensor_model_parallel_size = '2'"),
    "a huge layout": (argument("pipeline_model_parallel_size", 1 << 60), "_parallel_size = '115"),
    "unlike experts": (argument("num_experts", 3), "num_experts = '3' does not divide"),
    "no arguments": (change(lambda state: state.pop("args")), "no arguments of Megatron-LM in it"),
    "an older order of rows": (
        change(lambda state: state.update(checkpoint_version=1.0)), "checkpoint_version = 1.0, and",
    ),
    "no model": (change(lambda state: state.pop("model")), "no `model` in it"),
    "half of a pipeline": (
        change(lambda state: state.update(model1=state.pop("model"))), "no `model` in it, or parts",
    ),
    "a model of tables": (
        change(lambda state: state.update(model={"language_model": {}})), "holds tables, as",
    ),
    "a model of numbers": (change(lambda state: state.update(model=[1])), "no tensors by name"),
    "a weight that is a number": (weight(QKV, lambda _: 3), f"{QKV!r} is no tensor"),
    "a sparse weight": (weight(QKV, lambda t: t.to_sparse()), "_rebuild_sparse_tensor"),
    "a weight of whole numbers": (weight(QKV, lambda t: t.long()), "a tensor without storage"),
    "rows that do not join": (weight(QKV, lambda t: t[:-1]), "and in other ranks' files F32"),
    "another number format": (weight(QKV, lambda t: t.bfloat16()), "would be BF16"),
    "an odd gate": (
        weight(FC1, lambda t: t[:-1]),
        "misshapen: decoder.layers.0.mlp.experts.experts.2.linear_fc1.weight [47, 32], wanted [48",
    ),
    "unlike copies": (weight(ROUTER, lambda t: t + 1), f"{ROUTER} differs between {FIRST} and"),
    "a layer less": (change(without_layers, SECOND), "have unlike layers"),
    "a weight less": (
        change(lambda state: state["model"].pop(FC1), SECOND),
        "missing: decoder.layers.0.mlp.experts.experts.linear_fc1.weight",
    ),
    "an unknown weight": (
        weight("decoder.layers.0.adapter.weight", lambda _: torch.ones(2)),
        "unknown: decoder.layers.0.adapter.weight",
    ),
    "a share that is missing": (
        change(lambda state: state["model"].pop(QKV), SECOND), f"parts of tensor {QKV} are missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_checkpoint_is_one_line(kind: str, source: Path) -> None:
    spoil, message = SPOILED[kind]
    spoil(source)
    assert message in refused(source)
    assert not (source / "touched").exists()


@pytest.mark.parametrize("has_checksums", [True, False])
def test_files_that_one_process_saved_are_joined(
    has_checksums: bool, source: Path, tmp_path: Path
) -> None:
    torch.serialization.set_crc32_options(has_checksums)
    try:
        saved_by_one_process(source)
    finally:
        torch.serialization.set_crc32_options(True)
    assert from_megatron(source, tmp_path / "ours").parameters


@pytest.mark.parametrize("mapping", [False, True])
@pytest.mark.parametrize(
    ("tensor", "context", "pipeline", "data", "expert", "expert_tensor"),
    [(2, 1, 2, 2, 2, 2), (2, 2, 2, 1, 2, 1), (4, 1, 2, 2, 4, 2), (1, 2, 3, 4, 8, 1)],
)
def test_ranks_in_the_order_of_megatron_core_are_in_their_places(  # noqa: PLR0913, PLR0917
    tensor: int,
    context: int,
    pipeline: int,
    data: int,
    expert: int,
    expert_tensor: int,
    mapping: bool,
) -> None:
    world = tensor * context * pipeline * data
    shape = (data, pipeline) if mapping else (pipeline, data)
    ranks = np.arange(world).reshape(*shape, context * tensor)
    by_stage = (ranks.swapaxes(0, 1) if mapping else ranks).reshape(pipeline, -1)
    sizes = {
        "context_parallel_size": context, "world_size": world, "use_tp_pp_dp_mapping": mapping,
    }  # fmt: skip
    grid, files = Grid(tensor, pipeline, expert, expert_tensor), dict[Rank, RankFile]()
    for stage, inside in enumerate(by_stage):
        for number in map(int, inside):
            place = Rank(stage, number % tensor, number // expert_tensor % expert)
            arguments = sizes | {"rank": number}
            files[place] = RankFile(Path("f"), NO_ARCHIVE, arguments, [], (), 0)
    check_places(grid, files)
    first, *_, last = files
    for other in (dataclasses.replace(last, pipeline=first.pipeline),
                  dataclasses.replace(last, tensor=(last.tensor + 1) % tensor)):  # fmt: skip
        if other != last:
            with pytest.raises(InputError, match="files were swapped or folders renamed"):
                check_places(grid, {first: files[first], other: files[last]})
