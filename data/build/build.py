"""From documents to a token store: parts on all cores, then one store; resumable.

Everything unfinished lives in `STORE.building/` (a shard: `STORE.shard-I-of-N/`), and the store
takes its name only when it is whole. A killed build continues when it is started again.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from data.build.assemble import assemble
from data.build.build_folder import BuildFolder, open_build_folder
from data.build.unit_output import WorkerSettings, input_faults
from data.build.worker_pool import available_cores, run_units
from data.cleaning.cleaner import language_identifier
from data.cleaning.minhash import minhash_library
from data.cleaning.tally import Tally
from data.errors import DataError
from data.progress import BuildProgress, ProgressCallback
from data.recipe import DataRecipe, SourceRecipe
from data.sources.discovery import InputFiles, find_input_files
from data.sources.work_units import BuildShard, WorkUnit, plan_units
from data.storage.lock import locked_directory
from data.storage.new_directory import new_directory, publish_directory, refuse_existing
from data.store.manifest import BUILD_STATE_FILE, Manifest

BUILDING = ".building"
STORE = "store"


def build_store(
    sources: Sequence[Path],
    out: Path,
    *,
    tokenizer: str = "bpe:4096",
    eos_token: str | None = None,
    held_out_fraction: float = 0.02,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Tokenise every document under `sources` into a store at `out`, equal texts once.

    Raises:
        DataError: Wrong input; nothing is left at `out`.
    """
    recipe = DataRecipe(
        source=(SourceRecipe(paths=tuple(sources)),),
        tokenizer=tokenizer,
        eos_token=eos_token,
        held_out_fraction=held_out_fraction,
    )
    return build_recipe(recipe, out, progress=progress)


def build_recipe(
    recipe: DataRecipe,
    out: Path,
    *,
    workers: int | None = None,
    strict: bool = False,
    progress: ProgressCallback | None = None,
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
    if _ended_just_after_naming(out, recipe):
        shutil.rmtree(_scratch(out, BUILDING), ignore_errors=True)
        return Manifest.read(out)
    with _finished_work(out, BUILDING, recipe, (1, 1), workers, strict, progress) as work:
        root = work.path / STORE
        manifest = _assembled([work], root, progress)
        publish_directory(root, out)
        shutil.rmtree(work.path, ignore_errors=True)
    return manifest


def build_shard(
    recipe: DataRecipe,
    out: Path,
    shard: BuildShard,
    *,
    workers: int | None = None,
    strict: bool = False,
    progress: ProgressCallback | None = None,
) -> Path:
    """Do the i-th of n shares of a build; returns its folder, one of the inputs of `merge_shards`.

    Raises:
        DataError: Wrong input, or a share that does not exist.
        WorkerError: A worker process died; the same call continues.
    """
    index, count = shard
    if not 1 <= index <= count:
        raise DataError(f"--shard {index}/{count}: write I/N with 1 <= I <= N")
    ending = f".shard-{index}-of-{count}"
    with _finished_work(out, ending, recipe, shard, workers, strict, progress) as work:
        return work.path


def merge_shards(
    shards: Sequence[Path], out: Path, progress: ProgressCallback | None = None
) -> Manifest:
    """Make one store of all shards of a recipe; equals what one process would have built.

    Raises:
        DataError: A shard is missing, unfinished, or from another recipe.
    """
    refuse_existing(out)
    works = sorted((BuildFolder.read(path) for path in shards), key=lambda work: work.shard)
    first = works[0]
    for work in works:
        if work.depends != first.depends:
            raise DataError(f"{work.path}: from another recipe or other files than {first.path}")
        if work.num_units is None:
            raise DataError(f"{work.path}: unfinished: run its `moe data build --shard` again")
    numbers = [work.shard[0] for work in works]
    if numbers != list(range(1, first.shard[1] + 1)):
        raise DataError(f"shards {numbers} of {first.shard[1]}: each is needed, once")
    with new_directory(out) as root:
        return _assembled(works, root, progress)


def _scratch(out: Path, ending: str) -> Path:
    """Return the folder beside a store in which it is made."""
    return out.parent / f"{out.name}{ending}"


def _ended_just_after_naming(out: Path, recipe: DataRecipe) -> bool:
    """Tell whether `out` is of this very build, killed when only its parts were left to remove."""
    folder = _scratch(out, BUILDING)
    if not out.exists() or not folder.exists() or (folder / STORE).exists():
        return False
    try:
        with locked_directory(folder):
            return BuildFolder.read(folder).recipe == recipe
    except DataError:
        return False


@contextmanager
def _finished_work(  # noqa: PLR0913, PLR0917 - a build and its place
    out: Path,
    ending: str,
    recipe: DataRecipe,
    shard: BuildShard,
    workers: int | None,
    strict: bool,
    progress: ProgressCallback | None,
) -> Iterator[BuildFolder]:
    """Make every part of a share; gives its folder, held for this process alone."""
    refuse_existing(out)
    if recipe.clean.near_duplicates is not None:
        minhash_library()
    if recipe.clean.needs_language:
        language_identifier()
    if progress is not None:
        progress(BuildProgress("find files and make the tokenizer"))
    inputs = find_input_files(recipe)
    folder = _scratch(out, ending)
    with locked_directory(folder):
        is_new = not (folder / BUILD_STATE_FILE).is_file()
        try:
            refuse_existing(out)  # another process may have finished it meanwhile
            work = open_build_folder(folder, recipe, shard, inputs)
            yield _run(work, inputs, workers or available_cores(), strict, progress)
        except DataError:
            if is_new:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _run(
    work: BuildFolder,
    inputs: InputFiles,
    workers: int,
    strict: bool,
    progress: ProgressCallback | None,
) -> BuildFolder:
    total = sum(file.num_bytes for file in inputs.files) // work.shard[1]
    state = BuildProgress("clean and tokenise", total=total)
    num_units = 0

    def count_in(unit: WorkUnit, tally: Tally, tokens: int) -> None:
        nonlocal state
        state = replace(
            state,
            done=min(state.done + unit.num_bytes, total),
            documents=state.documents + tally.counts["read"],
            tokens=state.tokens + tokens,
        )

    def report(unit: WorkUnit, tally: Tally, tokens: int) -> None:
        count_in(unit, tally, tokens)
        if progress is not None:
            progress(state)

    def missing() -> Iterator[WorkUnit]:
        nonlocal num_units
        for unit in plan_units(work.recipe, inputs.files, work.shard):
            num_units += 1
            if work.finished(unit.name):
                tally, tokens = work.counts(unit.name)
                if not (strict and input_faults(tally)):  # made again, to name the document
                    count_in(unit, tally, tokens)
                    continue
            yield unit

    job = WorkerSettings(
        work.recipe, work.tokenizer.text, work.tokenizer.info.eos_token, work.parts, strict
    )
    run_units(job, missing(), workers, total, report)
    return work.completed(num_units)


def _assembled(
    works: Sequence[BuildFolder], root: Path, progress: ProgressCallback | None
) -> Manifest:
    """Write the store of all shares' parts into `root`."""
    parts = []
    for work in works:
        mine = work.part_files()
        if len(mine) != work.num_units:
            raise DataError(
                f"{work.path}: {len(mine)} parts of {work.num_units}: remove it, build it again"
            )
        parts += mine
    parts.sort(key=lambda path: path.name)
    first = works[0]
    return assemble(parts, first.recipe, first.tokenizer, root, first.notes, progress)
