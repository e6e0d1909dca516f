"""From unit outputs to a store: duplicates out, splits assigned, canaries in, manifest last."""

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from data.build.deduplication import DuplicateMap, find_duplicates
from data.build.dropped_table import write_dropped_table
from data.build.held_out_overlap import count_overlap
from data.build.source_writer import SourceWriter, canary_plantings
from data.build.split_assignment import DROPPED, IN_TRAIN, SplitAssignment, assign_splits
from data.build.unit_counts import UnitCounts
from data.build.unit_output_reader import UnitOutputs
from data.canaries import make_canaries
from data.cleaning.minhash import bands_for
from data.cleaning.tally import Tally
from data.errors import DataError
from data.progress import BuildProgress, ProgressCallback
from data.recipe import DataRecipe
from data.store.builder import StoreBuilder
from data.store.manifest import HELD_OUT_CHECKED, HELD_OUT_NEAR, Manifest
from data.tokenization.tokenizer import Tokenizer

LIBRARIES = ("tokenizers", "rensa", "py3langid")


def assemble_store(
    output_files: Sequence[Path],
    recipe: DataRecipe,
    tokenizer: Tokenizer,
    root: Path,
    notes: Mapping[str, int],
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Write a complete store into `root` from all unit outputs of a recipe.

    Args:
        output_files: Arrow files of the unit outputs, in document order.
        recipe: What they were made by.
        tokenizer: The same.
        root: Replaced where it exists.
        notes: Counts of the build that belong to no work unit.
        progress: Called now and then.

    Raises:
        DataError: No document is left; names what was dropped, and why.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    if progress is not None:
        progress(BuildProgress("find duplicates"))
    outputs = UnitOutputs(output_files)
    similarity = recipe.clean.near_duplicates
    duplicates = find_duplicates(
        outputs,
        exact=recipe.clean.exact_duplicates,
        bands=None if similarity is None else bands_for(similarity),
    )
    assignment = assign_splits(outputs, duplicates, recipe.held_out_fraction)
    dropped_table, dropped = write_dropped_table(root, outputs, duplicates, assignment)
    if not (assignment != DROPPED).any():
        counts = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
        first = _first_dropped(outputs)
        raise DataError(f"no document is left ({counts or 'the sources hold none'}){first}")
    tally = _total_tally(output_files, notes)
    tally.histograms["copies"] = _copies_histogram(duplicates, assignment)
    if similarity is None and recipe.held_out_fraction:
        overlap = count_overlap(outputs, assignment, tokenizer.info.vocab_size)
        if overlap.checked:
            tally.counts |= {HELD_OUT_CHECKED: overlap.checked, HELD_OUT_NEAR: overlap.near_train}
    builder = StoreBuilder(root, tokenizer, has_language=recipe.clean.needs_language)
    _write_sources(builder, recipe, tokenizer, output_files, assignment, tally, progress)
    counted = tally.to_json()
    return builder.finish(
        settings=recipe.model_dump(mode="json", exclude_none=True),
        dropped=dropped,
        dropped_table=dropped_table,
        counts={k: n for k, n in counted["counts"].items() if not k.startswith("dropped.")},
        histograms=counted["histograms"],
        canaries=() if recipe.canaries is None else make_canaries(recipe.canaries),
        libraries=_library_versions(),
    )


def _first_dropped(outputs: UnitOutputs) -> str:
    """Describe the first document, where all are dropped."""
    for _, batch in outputs.batches():
        for row in batch.slice(0, 1).select(["file", "position", "reason", "detail"]).to_pylist():
            fault = ": ".join(filter(None, (row["reason"], row["detail"])))
            remedy = ": choose one with --text-column" if row["reason"] == "no_text" else ""
            return f"; the first, {row['file']}, position {row['position']}: {fault}{remedy}"
    return ""


def _total_tally(output_files: Sequence[Path], notes: Mapping[str, int]) -> Tally:
    total = Tally(Counter(notes))
    for path in output_files:
        total.update(UnitCounts.read(path.with_suffix(".json")).tally)
    return total


def _copies_histogram(duplicates: DuplicateMap, assignment: SplitAssignment) -> Counter[str]:
    """Count documents in the store by how many each stands for, in bins that double."""
    originals = duplicates.original[duplicates.original >= 0]
    num_duplicates = np.unique(originals, return_counts=True)[1]
    unique = int((assignment != DROPPED).sum()) - num_duplicates.size
    bins = Counter({"1": unique} if unique else {})
    bins.update(f"{2 ** math.floor(math.log2(count + 1))}" for count in num_duplicates.tolist())
    return bins


def _write_sources(  # noqa: PLR0913, PLR0917 - an assembly
    builder: StoreBuilder,
    recipe: DataRecipe,
    tokenizer: Tokenizer,
    output_files: Sequence[Path],
    assignment: SplitAssignment,
    tally: Tally,
    progress: ProgressCallback | None,
) -> None:
    first = 0
    for index, source in enumerate(recipe.source):
        outputs = UnitOutputs([path for path in output_files if _source_index(path) == index])
        assigned = assignment[first : first + len(outputs)]
        plantings = []
        if recipe.canaries is not None and index == 0:
            canaries, num_train = make_canaries(recipe.canaries), int((assigned == IN_TRAIN).sum())
            plantings = canary_plantings(canaries, recipe.canaries.seed, num_train, tokenizer)
        writer = SourceWriter(builder.stream_writers(source.name), plantings, tally)
        for start, batch in outputs.batches():
            end = start + batch.num_rows
            writer.append_batch(batch, assigned[start:end])
            if progress is not None:
                done = first + end
                progress(BuildProgress("write", done, len(assignment), documents=done))
        first += len(outputs)
        builder.add_source(source.name, writer.close(), source.weight)


def _source_index(output_file: Path) -> int:
    """Return the source of a unit output, by its name (`WorkUnit.name`)."""
    return int(output_file.name.split("-")[0])


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
