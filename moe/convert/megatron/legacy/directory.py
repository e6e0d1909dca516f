"""A folder of `mp_rank_*`, read as one model, block by block."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from moe.checkpoint.regions import common_regions
from moe.config.model import LARGEST_SIZE, ModelConfig
from moe.convert.megatron.legacy.agreement import (
    check_one_iteration,
    check_one_model,
    check_places,
)
from moe.convert.megatron.legacy.cuts import Piece, share_of
from moe.convert.megatron.legacy.rank_files import (
    Rank,
    RankFile,
    is_tensor,
    read_rank_files,
)
from moe.convert.megatron.legacy.whole_names import is_routed_expert, local_layer, whole_name
from moe.convert.megatron.settings import MegatronSettings, of_arguments, shown
from moe.convert.megatron.tensor_names import VOCABULARY
from moe.convert.megatron.torch_archive import ArchivedTensor
from moe.errors import ConfigError
from moe.storage.safetensors_io import DTYPES, TensorShape, Where


@dataclass(frozen=True)
class _Copy:
    """A piece of a tensor in a file; other ranks may have the same piece."""

    file: RankFile
    tensor: ArchivedTensor
    piece: Piece

    def block(self, where: Where) -> torch.Tensor:
        """Return a block of the piece."""
        pairs = zip(self.piece.inside, where, strict=True)
        inside = (slice(own.start + cut.start, own.start + cut.stop) for own, cut in pairs)
        return self.tensor.block(tuple(inside))


@dataclass
class JoinedTensor:
    """A tensor of the whole model."""

    dtype: str
    shape: TensorShape
    copies: dict[tuple[TensorShape, TensorShape], list[_Copy]] = field(default_factory=dict)
    """By offset and shape of the piece."""


class LegacyDirectory:
    """The tensors of one checkpoint, under megatron-core's names, whole."""

    def __init__(self, directory: Path) -> None:
        """Read the index of every rank's file.

        Raises:
            ConfigError: One is missing or damaged, would execute something, or they disagree.
        """
        self.directory = directory
        self._grid, self._files = read_rank_files(directory)
        check_places(self._grid, self._files)
        check_one_iteration(self._files)
        self._first = next(iter(self._files.values()))
        self._arguments = self._first.arguments
        self.tensors: dict[str, JoinedTensor] = {}
        self.objects: dict[str, None] = {}
        self._join()

    def settings(self) -> MegatronSettings:
        """Return what the checkpoint says of its model.

        Raises:
            ConfigError: What it says is not what every version of Megatron-LM would do.
        """
        return of_arguments(str(self._first.path), self._arguments)

    def check_one_model(self, model: ModelConfig, rows: int) -> None:
        """Refuse ranks whose arguments are of another model than the first one's.

        Raises:
            ConfigError: Names the file and what differs.
        """
        check_one_model(self._files, model, rows)

    def read(self, key: str, where: Where) -> torch.Tensor:
        """Return a block of a tensor; only that is read. Trailing axes without a slice are whole.

        Raises:
            ConfigError: Parts of it are missing or damaged, or ranks hold unlike copies.
        """
        tensor = self.tensors[key]
        cuts = [cut.indices(n)[:2] for cut, n in zip(where, tensor.shape, strict=False)]
        cuts += [(0, n) for n in tensor.shape[len(cuts) :]]
        start, shape = [a for a, _ in cuts], [b - a for a, b in cuts]
        block = torch.empty(shape, dtype=DTYPES[tensor.dtype])
        filled = 0
        for (offset, size), copies in tensor.copies.items():
            both = common_regions(start, shape, offset, size)
            if both is None:
                continue
            mine, theirs = both
            block[mine] = copies[0].block(theirs)
            filled += block[mine].numel()
            for copy in copies[1:]:
                if not _same_bits(copy.block(theirs), block[mine]):
                    raise ConfigError(
                        f"{self.directory}: {key} differs between {copies[0].file.path.parent.name}"
                        f" and {copy.file.path.parent.name}, which should hold copies: load it in"
                        " Megatron and save with --ckpt-format torch_dist"
                    )
        if filled != block.numel():
            raise ConfigError(f"{self.directory}: parts of tensor {key} are missing")
        return block

    def _join(self) -> None:
        first_layer = 0
        for chunk in range(len(self._first.chunks)):
            for stage in range(self._grid.pipeline):
                ranks = {r: f for r, f in self._files.items() if r.pipeline == stage}
                layers = {_num_layers(file.chunks[chunk]) for file in ranks.values()}
                if len(layers) != 1:
                    raise ConfigError(
                        f"{self.directory}: ranks of pipeline stage {stage} have unlike layers"
                    )
                for rank, file in ranks.items():
                    place = partial(whole_name, first_layer=first_layer)
                    self._add_chunk(rank, file, file.chunks[chunk], place)
                first_layer += layers.pop()
        for file in self._files.values():
            keys = (key for key in file.others if key in _OTHERS)
            self.objects.update(dict.fromkeys(_OTHERS[key] for key in keys))

    def _add_chunk(self, rank: Rank, file: RankFile, chunk: dict[str, Any], place: Any) -> None:
        experts = self._experts_per_rank(file) if self._grid.expert > 1 else 0
        is_tied = self._arguments.get("untie_embeddings_and_output_weights") is False
        for name, value in chunk.items():
            key = place(name, first_expert=rank.expert * experts)
            if key == VOCABULARY[1] and is_tied:
                key = VOCABULARY[0]  # the last stage's copy
            if name.endswith("._extra_state") or value is None:
                self.objects[key] = None
            elif not is_tensor(value):
                raise ConfigError(f"{file.path}: {name[:120]!r} is no tensor")
            else:
                self._add(rank, file, name, key, file.archive.archived_tensor(value))

    def _add(self, rank: Rank, file: RankFile, name: str, key: str, tensor: ArchivedTensor) -> None:
        routed = is_routed_expert(name)
        ranks = self._grid.expert_tensor if routed else self._grid.tensor
        try:
            share = share_of(key, tensor.shape, rank.tensor % ranks, ranks, self._arguments)
        except ConfigError as error:
            raise ConfigError(f"{file.path}: {error}") from None
        joined = self.tensors.setdefault(key, JoinedTensor(tensor.dtype, share.whole))
        if (joined.dtype, joined.shape) != (tensor.dtype, share.whole):
            raise ConfigError(
                f"{file.path}: {key} would be {tensor.dtype} {list(share.whole)}, and in other"
                f" ranks' files {joined.dtype} {list(joined.shape)}"
            )
        for piece in share.pieces:
            copies = joined.copies.setdefault((piece.offset, piece.shape), [])
            copies.append(_Copy(file, tensor, piece))

    def _experts_per_rank(self, file: RankFile) -> int:
        experts = self._arguments.get("num_experts")
        ranks = self._grid.expert
        if type(experts) is not int or not 0 < experts <= LARGEST_SIZE or experts % ranks:
            raise ConfigError(
                f"{file.path}: num_experts = {shown(experts)!r} does not divide among"
                f" {ranks} expert-parallel ranks"
            )
        return experts // ranks


_OTHERS = {
    "optimizer": "optimizer.state",
    "opt_param_scheduler": "opt_param_scheduler",
    "rng_state": "rng_state",
    "rerun_state_machine": "rerun_state_machine_state",
}
"""What a rank's file has beside the model, as `LEFT_BEHIND` counts it."""


def _num_layers(chunk: dict[str, Any]) -> int:
    numbers = [local_layer(name) for name in chunk]
    return max((number + 1 for number in numbers if number is not None), default=0)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
