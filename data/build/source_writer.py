"""Writing the splits of one source, with canaries between its training documents."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.build.split_assignment import DROPPED, IN_HELD_OUT, SplitAssignment
from data.canaries import planting_positions
from data.cleaning.tally import Tally
from data.store.manifest import HELD_OUT, TRAIN, Canary, SplitName, StreamInfo
from data.store.writer import HASH_BYTES, StreamWriter
from data.tokenization.tokenizer import Tokenizer

Planting = tuple[int, NDArray[Any]]
"""How many training documents precede a canary, and its tokens with the end token."""


def canary_plantings(
    canaries: Sequence[Canary], seed: int, num_documents: int, tokenizer: Tokenizer
) -> list[Planting]:
    """Return the plantings of canaries among `num_documents` training documents, last first."""
    positions = planting_positions(canaries, seed, num_documents)
    texts = [canary.text for canary in canaries for _ in range(canary.repeats)]
    end = np.uint32(tokenizer.info.eos_id)
    tokens = [np.append(ids, end) for ids in tokenizer.encode_batch(texts)]
    return sorted(zip(positions.tolist(), tokens, strict=True), key=lambda planting: -planting[0])


class SourceWriter:
    """Writes the documents of one source to its splits."""

    def __init__(
        self,
        streams: dict[SplitName, StreamWriter],
        plantings: Sequence[Planting],
        tally: Tally,
    ) -> None:
        """Begin a source.

        Args:
            streams: Of each split.
            plantings: Canaries for the training split, last first.
            tally: Counts the written documents by their number of tokens.
        """
        self._streams = streams
        self._tally = tally
        self._train_documents = 0
        self._plantings = list(plantings)

    def append_batch(self, batch: Any, assignment: SplitAssignment) -> None:
        """Append the documents of one record batch of a unit output that are not dropped."""
        column = batch.column("tokens")
        tokens = column.values.to_numpy()
        ends = column.offsets.to_numpy()
        hashes = batch.column("hash")
        languages = batch.column("language") if "language" in batch.schema.names else None
        for row in np.flatnonzero(assignment != DROPPED).tolist():
            document = tokens[ends[row] : ends[row + 1]]
            content_hash = hashes[row].as_py()
            language = None if languages is None else languages[row].as_py()
            self._tally.add_to_histogram("tokens", 2 ** (document.size.bit_length() - 1))
            if assignment[row] == IN_HELD_OUT:
                self._streams[HELD_OUT].append(document, content_hash, language)
            else:
                self._plant()
                self._streams[TRAIN].append(document, content_hash, language)
                self._train_documents += 1

    def close(self) -> dict[SplitName, StreamInfo]:
        """Complete the streams."""
        self._plant()
        return {split: stream.close() for split, stream in self._streams.items()}

    def _plant(self) -> None:
        while self._plantings and self._plantings[-1][0] <= self._train_documents:
            _, tokens = self._plantings.pop()
            self._streams[TRAIN].append(tokens, bytes(HASH_BYTES))
