"""From parts to a store: duplicates out, splits apart, canaries in, manifest last."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.build.deduplication import DuplicateMap, find_duplicates
from data.build.unit_output_reader import UnitOutputs
from data.canaries import make_canaries, planting_positions
from data.cleaning.minhash import bands_for
from data.cleaning.tally import Tally
from data.errors import DataError
from data.progress import BuildProgress, ProgressCallback
from data.recipe import DataRecipe
from data.storage.atomic import write_text
from data.store.manifest import (
    FORMAT_VERSION,
    HELD_OUT,
    TRAIN,
    Canary,
    FileInfo,
    Manifest,
    SplitName,
    StoreSource,
    StreamInfo,
)
from data.store.writer import (
    BATCH_TOKENS,
    HASH_BYTES,
    SHARD_TOKENS,
    TABLE_BATCH_ROWS,
    ArrowFileWriter,
    StreamFormat,
    StreamWriter,
    dtype_for,
)
from data.tokenization.info import TOKENIZER_FILE
from data.tokenization.tokenizer import Tokenizer

DROPPED, IN_TRAIN, IN_HELD_OUT = 0, 1, 2
DROPPED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("file", "reason", "detail")] + [("position", pa.int64())]
)
LIBRARIES = ("tokenizers", "rensa", "py3langid")


@dataclass
class _Assembly:
    """What the steps of one assembly share."""

    root: Path
    recipe: DataRecipe
    parts: UnitOutputs
    duplicates: DuplicateMap
    fates: NDArray[np.uint8]
    tally: Tally
    dropped: Counter[str]


def assemble(
    part_files: Sequence[Path],
    recipe: DataRecipe,
    tokenizer: Tokenizer,
    root: Path,
    notes: Mapping[str, int],
    report: ProgressCallback | None = None,
) -> Manifest:
    """Write a whole store into `root` from all parts of a recipe, in document order.

    Raises:
        DataError: No document is left; names what was dropped, and why.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    if report is not None:
        report(BuildProgress("find duplicates"))
    similarity = recipe.clean.near_duplicates
    parts = UnitOutputs(part_files)
    duplicates = find_duplicates(
        parts,
        exact=recipe.clean.exact_duplicates,
        bands=None if similarity is None else bands_for(similarity),
    )
    fates = _fates(parts, duplicates, recipe.held_out_fraction)
    work = _Assembly(root, recipe, parts, duplicates, fates, Tally(Counter(notes)), Counter())
    for path in part_files:
        values = json.loads(path.with_suffix(".json").read_text())
        work.tally.update(Tally.from_json(values["tally"]))
    dropped_table = _write_dropped(work)
    if not (fates != DROPPED).any():
        counts = ", ".join(f"{reason}: {count}" for reason, count in work.dropped.items())
        raise DataError(f"no document is left ({counts or 'the sources hold none'})")
    canaries = () if recipe.canaries is None else make_canaries(recipe.canaries)
    sources = _write_sources(work, part_files, tokenizer, canaries, report)
    write_text(root / TOKENIZER_FILE, tokenizer.text)
    tally = work.tally.to_json()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        dtype=dtype_for(tokenizer.info.vocab_size),
        batch_tokens=BATCH_TOKENS,
        shard_tokens=SHARD_TOKENS,
        tokenizer=tokenizer.info,
        sources=sources,
        dropped=dict(sorted(work.dropped.items())),
        dropped_table=dropped_table,
        counts={k: v for k, v in tally["counts"].items() if not k.startswith("dropped.")},
        histograms=tally["histograms"],
        canaries=canaries,
        libraries=_library_versions(),
        settings=recipe.model_dump(mode="json", exclude_none=True),
    )
    manifest.write(root)
    return manifest


def _fates(
    parts: UnitOutputs, duplicates: DuplicateMap, held_out_fraction: float
) -> NDArray[np.uint8]:
    """Decide for each document: dropped, train or held out (by the hash of its text)."""
    border = min(int(held_out_fraction * 2**64), 2**64 - 1)
    is_held_out = parts.hashes()[:, 0] < np.uint64(border)
    fates = np.where(is_held_out, IN_HELD_OUT, IN_TRAIN).astype(np.uint8)
    fates[~parts.passed() | (duplicates.keeper >= 0)] = DROPPED
    return fates


def _write_dropped(work: _Assembly) -> FileInfo:
    """Write the table of dropped documents and count them by reason."""
    writer = ArrowFileWriter(work.root, "dropped.arrow", DROPPED_SCHEMA)
    rows: list[dict[str, Any]] = []
    for start, batch in work.parts.batches():
        here = np.flatnonzero(work.fates[start : start + batch.num_rows] == DROPPED)
        dropped = batch.select(DROPPED_SCHEMA.names).take(pa.array(here)).to_pylist()
        for row, values in zip(here.tolist(), dropped, strict=True):
            rows.append(_with_keeper(work, values, start + row))
            work.dropped[rows[-1]["reason"]] += 1
        if len(rows) >= TABLE_BATCH_ROWS:
            _flush(writer, rows)
    _flush(writer, rows)
    copies = np.unique(work.duplicates.keeper[work.duplicates.keeper >= 0], return_counts=True)[1]
    single = int((work.fates != DROPPED).sum()) - copies.size
    bins = Counter({"1": single} if single else {})
    bins.update(f"{2 ** math.floor(math.log2(count + 1))}" for count in copies.tolist())
    work.tally.histograms["copies"] = bins
    return writer.close()


def _flush(writer: ArrowFileWriter, rows: list[dict[str, Any]]) -> None:
    if rows:
        writer.write(*([row[name] for row in rows] for name in DROPPED_SCHEMA.names))
        rows.clear()


def _with_keeper(work: _Assembly, values: dict[str, Any], document: int) -> dict[str, Any]:
    """Name the earlier document for which a duplicate was dropped."""
    keeper = int(work.duplicates.keeper[document])
    if keeper < 0:
        return values
    reason = "duplicate" if work.duplicates.exact[document] else "near_duplicate"
    return {**values, "reason": reason, "detail": f"of {work.parts.place(keeper)}"}


def _write_sources(
    work: _Assembly,
    part_files: Sequence[Path],
    tokenizer: Tokenizer,
    canaries: tuple[Canary, ...],
    report: ProgressCallback | None,
) -> tuple[StoreSource, ...]:
    sources = []
    document = 0
    for index, source in enumerate(work.recipe.source):
        mine = [path for path in part_files if int(path.name.split("-")[0]) == index]
        parts = UnitOutputs(mine)
        fates = work.fates[document : document + len(parts)]
        planted = canaries if index == 0 else ()
        writer = _SourceWriter(
            work, source.name, tokenizer, planted, int((fates == IN_TRAIN).sum())
        )
        for start, batch in parts.batches():
            writer.append_batch(batch, fates[start : start + batch.num_rows])
            if report is not None:
                done = document + start + batch.num_rows
                report(BuildProgress("write", done, len(work.parts), documents=done))
        document += len(parts)
        sources.append(StoreSource(name=source.name, weight=source.weight, splits=writer.close()))
    return tuple(sources)


class _SourceWriter:
    """Writes the splits of one source, and canaries between its training documents."""

    def __init__(
        self,
        work: _Assembly,
        name: str,
        tokenizer: Tokenizer,
        canaries: tuple[Canary, ...],
        num_train: int,
    ) -> None:
        info = tokenizer.info
        form = StreamFormat(
            dtype=dtype_for(info.vocab_size),
            tokenizer_sha256=info.sha256,
            tells_language=work.recipe.clean.needs_language,
        )
        self._tally = work.tally
        self._streams: dict[SplitName, StreamWriter] = {
            split: StreamWriter(work.root, f"{name}/{split}", form) for split in (TRAIN, HELD_OUT)
        }
        self._train_documents = 0
        self._planted: list[tuple[int, NDArray[Any]]] = []
        if canaries and work.recipe.canaries is not None:
            places = planting_positions(canaries, work.recipe.canaries.seed, num_train)
            texts = [canary.text for canary in canaries for _ in range(canary.repeats)]
            tokens = [
                np.append(ids, np.uint32(info.eos_id)) for ids in tokenizer.encode_batch(texts)
            ]
            self._planted = sorted(zip(places.tolist(), tokens, strict=True), key=lambda p: -p[0])

    def append_batch(self, batch: Any, fates: NDArray[np.uint8]) -> None:
        """Append the kept documents of one record batch of a part."""
        column = batch.column("tokens")
        tokens = column.values.to_numpy()
        ends = column.offsets.to_numpy()
        hashes = batch.column("hash")
        languages = batch.column("language") if "language" in batch.schema.names else None
        for row in np.flatnonzero(fates != DROPPED).tolist():
            document = tokens[ends[row] : ends[row + 1]]
            content_hash = hashes[row].as_py()
            language = None if languages is None else languages[row].as_py()
            self._tally.add_to_histogram("tokens", 2 ** (document.size.bit_length() - 1))
            if fates[row] == IN_HELD_OUT:
                self._streams[HELD_OUT].append(document, content_hash, language)
            else:
                self._plant()
                self._streams[TRAIN].append(document, content_hash, language)
                self._train_documents += 1

    def close(self) -> dict[SplitName, StreamInfo]:
        """Complete both splits."""
        self._plant()
        return {split: stream.close() for split, stream in self._streams.items()}

    def _plant(self) -> None:
        while self._planted and self._planted[-1][0] <= self._train_documents:
            _, tokens = self._planted.pop()
            self._streams[TRAIN].append(tokens, bytes(HASH_BYTES))


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
