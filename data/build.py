"""From documents to a token store: parts on all cores, then one store; resumable.

Everything unfinished lives in `STORE.building/` (a shard: `STORE.shard-I-of-N/`), and the store
takes its name only when it is whole. A killed build continues when it is started again.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.assemble import assemble
from data.clean import Tally, language_identifier
from data.errors import DataError
from data.files import sync_folder
from data.manifest import Manifest
from data.near import minhash_library
from data.part import Job
from data.recipe import Recipe, SourceRecipe
from data.units import InputFile, Unit, list_files, plan_units
from data.work import WorkFolder, work_folder
from data.workers import available_cores, run_units


@dataclass(frozen=True)
class Progress:
    """How far a build is."""

    stage: str
    """`clean and tokenise` (in bytes of input), or `write` (in documents)."""
    done: int = 0
    total: int = 0
    documents: int = 0
    """Documents read so far."""
    tokens: int = 0
    """Tokens made so far."""


Report = Callable[[Progress], None]


def build_store(
    sources: Sequence[Path],
    out: Path,
    *,
    tokenizer: str = "bpe:4096",
    eos_token: str | None = None,
    held_out_fraction: float = 0.02,
    progress: Report | None = None,
) -> Manifest:
    """Tokenise every document under `sources` into a store at `out`, equal texts once.

    Raises:
        DataError: Wrong input; nothing is left at `out`.
    """
    recipe = Recipe(
        source=(SourceRecipe(paths=tuple(sources)),),
        tokenizer=tokenizer,
        eos_token=eos_token,
        held_out_fraction=held_out_fraction,
    )
    return build_recipe(recipe, out, progress=progress)


def build_recipe(
    recipe: Recipe,
    out: Path,
    *,
    workers: int | None = None,
    strict: bool = False,
    progress: Report | None = None,
) -> Manifest:
    """Build a store as a recipe says, or continue a build that was killed.

    Args:
        recipe: Sources, tokeniser, cleaning.
        out: The store; must not exist.
        workers: Processes; default: one a core.
        strict: Refuse the first document that cannot be read, instead of counting it.
        progress: Called now and then.

    Raises:
        DataError: Wrong input; nothing is left at `out`.
        WorkerError: A worker process died; the same call continues.
    """
    _refuse_existing(out)
    folder = out.with_name(out.name + ".building")
    work = _make_parts(folder, recipe, (1, 1), workers, strict, progress)
    manifest = _finish([work], out, progress)
    shutil.rmtree(folder)
    return manifest


def build_shard(
    recipe: Recipe,
    out: Path,
    shard: tuple[int, int],
    *,
    workers: int | None = None,
    strict: bool = False,
    progress: Report | None = None,
) -> Path:
    """Do the i-th of n shares of a build; returns its folder, one of the inputs of `merge_shards`.

    Raises:
        DataError: Wrong input, or a share that does not exist.
        WorkerError: A worker process died; the same call continues.
    """
    index, count = shard
    if not 1 <= index <= count:
        raise DataError(f"--shard {index}/{count}: write I/N with 1 <= I <= N")
    folder = out.with_name(f"{out.name}.shard-{index}-of-{count}")
    return _make_parts(folder, recipe, shard, workers, strict, progress).path


def merge_shards(shards: Sequence[Path], out: Path, progress: Report | None = None) -> Manifest:
    """Make one store of all shards of a recipe; equals what one process would have built.

    Raises:
        DataError: A shard is missing, unfinished, or from another recipe.
    """
    _refuse_existing(out)
    works = [WorkFolder.read(path) for path in shards]
    first = works[0]
    for work in works:
        if work.depends != first.depends:
            raise DataError(f"{work.path}: from another recipe or other files than {first.path}")
        if work.num_units is None:
            raise DataError(f"{work.path}: unfinished: run its `moe data build --shard` again")
    numbers = sorted(work.shard[0] for work in works)
    if numbers != list(range(1, first.shard[1] + 1)):
        raise DataError(f"shards {numbers} of {first.shard[1]}: each is needed, once")
    return _finish(works, out, progress)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise DataError(f"{out}: exists already: remove it or choose another name")


def _make_parts(
    folder: Path,
    recipe: Recipe,
    shard: tuple[int, int],
    workers: int | None,
    strict: bool,
    progress: Report | None,
) -> WorkFolder:
    if recipe.clean.near_duplicates is not None:
        minhash_library()
    if recipe.clean.languages:
        language_identifier()
    files = list_files(recipe)
    is_new = not folder.exists()
    try:
        with work_folder(folder, recipe, shard, files) as work:
            return _run(work, files, workers or available_cores(), strict, progress)
    except DataError:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _run(
    work: WorkFolder, files: list[InputFile], workers: int, strict: bool, progress: Report | None
) -> WorkFolder:
    index, count = work.shard
    total = sum(file.num_bytes for file in files)
    state = Progress("clean and tokenise", total=total)
    num_units = 0

    def count_in(unit: Unit, tally: Tally, tokens: int) -> None:
        nonlocal state
        state = replace(
            state,
            done=state.done + unit.num_bytes,
            documents=state.documents + tally.counts["read"],
            tokens=state.tokens + tokens,
        )
        if progress is not None:
            progress(state)

    def missing() -> Iterator[Unit]:
        nonlocal num_units
        for unit in plan_units(work.recipe, files):
            num_units += 1
            if (unit.file + unit.block) % count != index - 1:
                continue
            if not work.finished(unit.name):
                yield unit
            else:
                count_in(unit, *work.counts(unit.name))

    job = Job(work.recipe, work.tokenizer.text, work.tokenizer.info.eos_token, work.parts, strict)
    run_units(job, missing(), workers, total, count_in)
    return work.completed(num_units)


def _finish(works: Sequence[WorkFolder], out: Path, progress: Report | None) -> Manifest:
    parts = sorted((p for work in works for p in work.part_files()), key=lambda path: path.name)
    if len(parts) != works[0].num_units:
        raise DataError(
            f"{len(parts)} parts of {works[0].num_units} in {works[0].path} ...: build them again"
        )
    root = out.with_name(out.name + ".writing")

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(Progress("write", done, total, documents=done))

    try:
        manifest = assemble(parts, works[0].recipe, works[0].tokenizer, root, report)
    except DataError:
        shutil.rmtree(root, ignore_errors=True)
        raise
    root.rename(out)
    sync_folder(out.parent)
    return manifest
