"""A dense checkpoint as a sparse one that computes the same.

Every expert begins as the dense feed-forward network (arXiv:2212.05055) or, with granularity G,
as one G-th of its inner dimension (arXiv:2410.07524): experts come in copies of G shards whose
router rows are the same, so that a token reaches all shards of the copies it chooses. The chosen
weights sum to one and are scaled by G, so the sparse layer's output is the dense layer's.

Shapes: E experts, F inner size of the dense network, H hidden.
"""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError

from data.storage.atomic import write_json
from data.storage.new_directory import new_directory
from data.tokenization.hub_folder import GENERATION_FILE
from moe.checkpoint.directory import use_checkpoint
from moe.checkpoint.index import StoredTensors, read_index, verify_files
from moe.config.explain import explain
from moe.config.locating import HUB_DIRECTORY
from moe.config.model import ModelConfig
from moe.config.tensor_names import FFN_NORM, FUSED_FFN_NORM, ROUTED_EXPERTS
from moe.convert.companions import companions_of
from moe.convert.hugging_face import ConvertProgress, checkpoint_model, from_hub, write_checkpoint
from moe.convert.tensor_map import BlockPair, Names, TensorMap, tensor_map
from moe.errors import ConfigError, disk_errors
from moe.storage.safetensors_io import DTYPES, TensorShape


@dataclass(frozen=True, kw_only=True)
class Upcycling:
    """How a dense model becomes sparse."""

    num_experts: int
    top_k: int
    granularity: int = 1
    """Shards that each copy of the dense network is cut into, one an expert."""
    first_dense_layers: int = 0
    layer_interval: int = 1
    noise: float = 0.0
    """Gaussian noise on each expert's matrices, in standard deviations of the dense matrix."""
    seed: int = 0


def upcycled_model(dense: ModelConfig, how: Upcycling) -> ModelConfig:
    """Return the sparse model.

    Raises:
        ConfigError: The numbers do not go together, or the model is sparse already.
    """
    inner, shards = dense.ffn_hidden_size or 0, how.granularity
    if dense.moe is not None:
        raise ConfigError("the model has routed experts already: upcycling begins with a dense one")
    for name, value in (("experts", how.num_experts), ("top-k", how.top_k)):
        if shards < 1 or value % shards:
            raise ConfigError(f"--{name} {value} is not a multiple of --granularity {shards}")
    if how.top_k == shards == 1:
        raise ConfigError(
            "--top-k 1: one expert's normalized weight is always 1, and the router would learn"
            " nothing: choose 2 or more"
        )
    if inner % shards:
        raise ConfigError(f"ffn_hidden_size={inner} is not a multiple of --granularity {shards}")
    moe = {
        "num_experts": how.num_experts,
        "top_k": how.top_k,
        "expert_ffn_hidden_size": inner // shards,
        "first_dense_layers": how.first_dense_layers,
        "layer_interval": how.layer_interval,
        "scaling_factor": float(shards),
    }
    try:
        return ModelConfig.model_validate(dense.model_dump() | {"preset": None, "moe": moe})
    except ValidationError as error:
        raise ConfigError(f"upcycling: {explain(error, ModelConfig)}") from None


@dataclass(frozen=True)
class Upcycled:
    """What was made."""

    model: ModelConfig
    notes: tuple[str, ...] = ()
    """What was left out, a line each."""


def upcycle(
    source: Path, out: Path, how: Upcycling, progress: ConvertProgress | None = None
) -> Upcycled:
    """Write the sparse checkpoint `out`.

    Args:
        source: A dense checkpoint of ours, a run (its newest), or a Hugging Face directory.
        out: The checkpoint directory to make.
        how: Experts and layers.
        progress: Told of bytes written.

    Raises:
        ConfigError: The source is not a dense model.
        DataError: `out` exists, or another process is making it.
    """

    def convert(checkpoint_dir: Path) -> Upcycled:
        with disk_errors(out), new_directory(out) as partial:
            return _upcycled(checkpoint_dir, partial, how, progress)

    if not (source / "config.json").is_file():
        return use_checkpoint(source, None, convert)
    with disk_errors(out), new_directory(out) as partial:
        dense = partial / "dense"
        read = from_hub(source, dense)
        made = _upcycled(dense, partial, how, progress)
        shutil.rmtree(dense)
        return replace(made, notes=read.notes + made.notes)


def _upcycled(
    source: Path, target: Path, how: Upcycling, progress: ConvertProgress | None
) -> Upcycled:
    """Write the sparse checkpoint of a dense one into `target`."""
    verify_files(source)
    dense = checkpoint_model(source)
    sparse = upcycled_model(dense, how)
    stored = StoredTensors(source, read_index(source))
    reader = _Reader(stored, sparse, how)
    write_checkpoint(
        target,
        _blocks(dense, sparse, how.granularity),
        sparse,
        dtype=reader.dtype,
        read=reader.read,
        progress=progress,
    )
    companions = companions_of(source, sparse)
    notes: list[str] = []
    if companions.folder is not None or companions.language is not None:
        # What the dense model's text needs stays; its configuration does not fit.
        hub = target / HUB_DIRECTORY
        hub.mkdir()
        notes = companions.write(hub)
        if not (hub / GENERATION_FILE).exists():  # the ids may stand in that configuration alone
            write_json(hub / GENERATION_FILE, companions.token_ids)
    return Upcycled(sparse, tuple(notes))


def _blocks(dense: ModelConfig, sparse: ModelConfig, shards: int) -> TensorMap:
    """Return where each block of the sparse checkpoint (ours) is in the dense one (theirs)."""
    before, after = (tensor_map(model, Names()).ours for model in (dense, sparse))
    mapping = TensorMap()
    for key, shape in after.items():
        if ROUTED_EXPERTS in key:
            _expert_blocks(mapping, key, shape, shards)
        else:
            # A dense layer's norm belongs to its feed-forward network's projection.
            is_same = key in before or ".mlp.router." in key
            mapping.same(key, key if is_same else key.replace(FFN_NORM, FUSED_FFN_NORM), *shape)
    return mapping


def _expert_blocks(mapping: TensorMap, key: str, shape: TensorShape, shards: int) -> None:
    """Map experts' `linear_fc1` [E, 2 F/G, ..], `linear_fc2` [E, H, F/G] and their biases."""
    theirs = key.replace(ROUTED_EXPERTS, ".")
    rest = shape[2:]
    for expert in range(shape[0]):
        shard = expert % shards
        if ".linear_fc2." in key:
            columns = (slice(shard * n, (shard + 1) * n) for n in rest)
            where = (slice(None), *columns)
            mapping.block(key, shape, theirs, (), (expert, *(0 for _ in shape[1:])),
                          (1, *shape[1:]), where)  # fmt: skip
            continue
        inner = shape[1] // 2
        for half in range(2):
            first = (half * shards + shard) * inner
            start = (expert, half * inner, *(0 for _ in rest))
            where = (slice(first, first + inner),)
            mapping.block(key, shape, theirs, (), start, (1, inner, *rest), where)


class _Reader:
    """Reads blocks of the sparse checkpoint from the dense one; routers are drawn."""

    def __init__(self, stored: StoredTensors, sparse: ModelConfig, how: Upcycling) -> None:
        self.stored, self.sparse, self.how = stored, sparse, how
        self._scales: dict[str, float] = {}

    def dtype(self, pair: BlockPair) -> str:
        """Return the number format a block is stored in."""
        is_router = ".mlp.router." in pair.ours
        return self.stored.dtype("embedding.word_embeddings.weight" if is_router else pair.theirs)

    def read(self, pair: BlockPair) -> torch.Tensor:
        """Return a block."""
        if ".mlp.router." in pair.ours:
            return self._router(pair).to(DTYPES[self.dtype(pair)])
        block = self._dense_block(pair.theirs, pair.where).reshape(pair.shape)
        if ROUTED_EXPERTS in pair.ours and pair.ours.endswith("linear_fc2.bias"):
            # Each of a copy's shards adds its fraction of the bias.
            return block / self.how.granularity
        if self.how.noise and ROUTED_EXPERTS in pair.ours and not pair.ours.endswith("bias"):
            scale = self.how.noise * self._scale(pair.theirs)
            drawn = torch.randn(pair.shape, generator=self._generator(f"{pair.ours}{pair.start}"))
            return (block.float() + scale * drawn).to(block.dtype)
        return block

    def _router(self, pair: BlockPair) -> torch.Tensor:
        """Draw a row for each copy, the same for all its shards; biases are zero."""
        copies = pair.shape[0] // self.how.granularity
        if len(pair.shape) == 1:
            return torch.zeros(pair.shape)
        rows = torch.randn(copies, *pair.shape[1:], generator=self._generator(pair.ours))
        return (rows * self.sparse.init_std).repeat_interleave(self.how.granularity, dim=0)

    def _dense_block(self, key: str, where: tuple[slice, ...]) -> torch.Tensor:
        full_shape = self.stored.shape(key)
        cuts = [cut.indices(n) for cut, n in zip(where, full_shape, strict=False)]
        start = tuple(cut[0] for cut in cuts) + (0,) * (len(full_shape) - len(cuts))
        shape = tuple(cut[1] - cut[0] for cut in cuts) + full_shape[len(cuts) :]
        block = torch.empty(shape, dtype=DTYPES[self.stored.dtype(key)])
        if not self.stored.read_block(block, key, start, shape):
            raise ConfigError(f"{self.stored.directory}: parts of tensor {key} are missing")
        return block

    def _scale(self, key: str) -> float:
        if key not in self._scales:
            self._scales[key] = float(self._dense_block(key, ()).float().std())
        return self._scales[key]

    def _generator(self, name: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.how.seed}:{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
