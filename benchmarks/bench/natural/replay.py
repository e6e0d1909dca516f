"""Recorded routing decisions of a trained model as the routing of a benchmark.

A benchmark has other batches than the recorded model had. Each rank takes consecutive tokens of
the recording, in its own order, step after step, and begins again at its end. The sparse layers of
the benchmarked model take the recorded ones in order, and begin again where it has more. Experts
and top-k must be the recording's: choices among 8 experts are no natural ones among 16.

Shapes: T tokens of a micro-batch on a rank, K experts of a token, N tokens of the recording.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.errors import BenchmarkError
from data.storage.checksums import file_sha256
from moe.routing.record import RecordOrigin, RoutingRecord

RECORDINGS = Path(__file__).with_name("recordings")
"""Recordings that come with the package; each is called by its file's stem."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A recording that a benchmark may take its routing from."""

    name: str
    """As `--replay` named it."""
    sha256: str
    """Of the file."""
    origin: RecordOrigin
    layers: dict[int, Tensor]
    """The experts of each recorded layer (from 1), int32 [N, K]."""

    @property
    def label(self) -> str:
        """Name and content, which tell a case of a benchmark from others."""
        return f"{self.name} {self.sha256[:12]}"

    @property
    def num_tokens(self) -> int:
        """Tokens of the recording."""
        return len(next(iter(self.layers.values())))

    def check_fits(self, num_experts: int, top_k: int) -> None:
        """Raise BenchmarkError unless the routed experts are as many as were recorded."""
        origin = self.origin
        if (num_experts, top_k) != (origin.num_experts, origin.top_k):
            raise BenchmarkError(
                f"--replay {self.name}: it chose {origin.top_k} of {origin.num_experts} experts,"
                f" this model has {top_k} of {num_experts}: replay a run with as many, recorded"
                " with moe eval --record-routing"
            )

    def recorded_layer(self, index: int) -> int:
        """Return the recorded layer that stands for the sparse layer `index` (from 0)."""
        layers = sorted(self.layers)
        return layers[index % len(layers)]

    def experts(self, layer: int, start: int, num_tokens: int) -> Tensor:
        """Return a recorded layer's experts of tokens from `start` on, int64 [T, K]."""
        indices = torch.arange(start, start + num_tokens) % self.num_tokens
        return self.layers[layer][indices].long()

    def source(self, sparse_layers: Sequence[int], tokens_a_step: int) -> dict[str, Any]:
        """Describe the routing of a benchmark, for its record.

        Args:
            sparse_layers: Numbers of the model's sparse layers, from 0.
            tokens_a_step: Tokens that it takes of the recording in each step, on all ranks.
        """
        return {
            "kind": "replay",
            "file": self.name,
            "sha256": self.sha256,
            **self.origin.model_dump(mode="json", include={"run", "step", "store", "split"}),
            "tokens": self.num_tokens,
            "recorded_layers": {
                str(layer): self.recorded_layer(index) - 1
                for index, layer in enumerate(sparse_layers)
            },
            "layers_repeat": len(sparse_layers) > len(self.layers),
            "tokens_a_step": tokens_a_step,
        }


def open_replay(name: str | None) -> Replay | None:
    """Read a recording: a file, or the name of one that comes with the package; None for None.

    Raises:
        BenchmarkError: There is no such name.
        ConfigError: There is no such file, or it is not a recording.
    """
    if name is None:
        return None
    path = Path(name)
    if "/" not in name and not path.suffix:
        path = RECORDINGS / f"{name}.safetensors"
        if not path.is_file():
            shipped = ", ".join(sorted(file.stem for file in RECORDINGS.glob("*.safetensors")))
            raise BenchmarkError(
                f"--replay {name!r}: there is {shipped}; a file's name has a folder or an ending"
            )
    record = RoutingRecord.load(path)
    assert record.origin is not None
    layers = {layer: torch.cat(passes) for layer, passes in record.passes.items()}
    return Replay(name=name, sha256=file_sha256(path), origin=record.origin, layers=layers)


def check_replay_used(replay: Replay | None, profiles: Sequence[RoutingProfile]) -> None:
    """Raise BenchmarkError for a recording that no routing would take."""
    if replay is not None and all(profile.kind != "natural" for profile in profiles):
        raise BenchmarkError("--replay is of --routing natural: name it, or leave --replay out")
