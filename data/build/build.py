"""From documents to a token store: unit outputs on all cores, then one store; resumable.

Everything unfinished lives in `STORE.building/` (of a build shard: `STORE.shard-I-of-N/`), and the
store has its name only when it is complete. A killed build continues when it is started again.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from data.build.assemble import assemble_store
from data.build.build_folder import BuildFolder, abandon, open_build_folder
from data.build.unit_output import WorkerSettings, input_faults
from data.build.worker_pool import available_cores, run_units
from data.cleaning.cleaner import language_identifier
from data.cleaning.minhash import minhash_library
from data.cleaning.tally import Tally
from data.errors import DataError, FailedError
from data.progress import BuildProgress, ProgressCallback
from data.recipe import DataRecipe, SourceRecipe
from data.sources.discovery import InputFiles, find_input_files
from data.sources.work_units import BuildShard, WorkUnit, check_tables, plan_units
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
    """Tokenize every document under `sources` into a store at `out`, equal texts once.

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
    """Build the store that a recipe describes, or continue a build that was killed.

    Args:
        recipe: Sources, tokenizer, cleaning.
        out: The store; must not exist.
        workers: Processes; default: one per core.
        strict: Refuse the first document that cannot be read, instead of counting it.
        progress: Called now and then.

    Raises:
        DataError: Wrong input; nothing is left at `out`.
        WorkerError: A worker process died; the same call continues.
    """
    if _was_killed_after_publishing(out, recipe):
        shutil.rmtree(_scratch(out, BUILDING), ignore_errors=True)
        return Manifest.read(out)
    options = _Options(workers or available_cores(), strict, progress)
    with _finished_folder(out, BUILDING, recipe, (1, 1), options) as folder:
        root = folder.path / STORE
        manifest = _assemble([folder], root, progress)
        publish_directory(root, out)
        shutil.rmtree(folder.path, ignore_errors=True)
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
    """Process the work units of one build shard; returns its folder, an input of `merge_shards`.

    Raises:
        DataError: Wrong input, or a build shard that does not exist.
        WorkerError: A worker process died; the same call continues.
    """
    index, count = shard
    if not 1 <= index <= count:
        raise DataError(f"--shard {index}/{count}: write I/N with 1 <= I <= N")
    ending = f".shard-{index}-of-{count}"
    options = _Options(workers or available_cores(), strict, progress)
    with _finished_folder(out, ending, recipe, shard, options) as folder:
        return folder.path


def merge_shards(
    shards: Sequence[Path], out: Path, progress: ProgressCallback | None = None
) -> Manifest:
    """Make one store of all build shards of a recipe; equals what one process would have built.

    Raises:
        DataError: A build shard is missing, unfinished, or from another recipe.
    """
    refuse_existing(out)
    folders = sorted((BuildFolder.read(path) for path in shards), key=lambda folder: folder.shard)
    first = folders[0]
    for folder in folders:
        if folder.common_state != first.common_state:
            raise DataError(f"{folder.path}: from another recipe or other files than {first.path}")
        if folder.num_units is None:
            raise DataError(f"{folder.path}: unfinished: run its `moe data build --shard` again")
    numbers = [folder.shard[0] for folder in folders]
    if numbers != list(range(1, first.shard[1] + 1)):
        raise DataError(f"shards {numbers} of {first.shard[1]}: each is needed, once")
    with new_directory(out) as root:
        return _assemble(folders, root, progress)


@dataclass(frozen=True)
class _Options:
    """How a build runs; nothing here changes the store."""

    workers: int
    strict: bool
    progress: ProgressCallback | None


def _scratch(out: Path, ending: str) -> Path:
    """Return the folder beside a store in which it is built."""
    return out.parent / f"{out.name}{ending}"


def _was_killed_after_publishing(out: Path, recipe: DataRecipe) -> bool:
    """Whether `out` is of this build, which was killed with only its outputs left to remove."""
    folder = _scratch(out, BUILDING)
    if not out.exists() or not folder.exists() or (folder / STORE).exists():
        return False
    try:
        with locked_directory(folder):
            return BuildFolder.read(folder).recipe == recipe
    except DataError:
        return False


@contextmanager
def _finished_folder(
    out: Path, ending: str, recipe: DataRecipe, shard: BuildShard, options: _Options
) -> Iterator[BuildFolder]:
    """Complete every unit output of a build shard; yields its folder, locked for this process."""
    refuse_existing(out)
    if recipe.clean.near_duplicates is not None:
        minhash_library()
    if recipe.clean.needs_language:
        language_identifier(recipe.clean.languages)
    if options.progress is not None:
        options.progress(BuildProgress("find files and make the tokenizer"))
    inputs = find_input_files(recipe)
    check_tables(recipe, inputs.files)
    path = _scratch(out, ending)
    with locked_directory(path):
        is_new = not (path / BUILD_STATE_FILE).is_file()
        is_ours = is_new
        try:
            refuse_existing(out)  # another process may have finished it meanwhile
            folder = open_build_folder(path, recipe, shard, inputs)
            is_ours = True
            yield _run(folder, inputs, options)
        except (FailedError, OSError):
            raise  # the same command continues
        except Exception:
            if is_ours:
                abandon(path, is_new=is_new)
            raise


def _run(folder: BuildFolder, inputs: InputFiles, options: _Options) -> BuildFolder:
    """Process the work units that have no output yet."""
    total = sum(file.num_bytes for file in inputs.files) // folder.shard[1]
    state = BuildProgress("clean and tokenize", total=total)
    num_units = 0

    def add(unit: WorkUnit, tally: Tally, tokens: int) -> None:
        nonlocal state
        state = replace(
            state,
            done=min(state.done + unit.num_bytes, total),
            documents=state.documents + tally.counts["read"],
            tokens=state.tokens + tokens,
        )

    def report(unit: WorkUnit, tally: Tally, tokens: int) -> None:
        add(unit, tally, tokens)
        if options.progress is not None:
            options.progress(state)

    def missing_units() -> Iterator[WorkUnit]:
        nonlocal num_units
        for unit in plan_units(folder.recipe, inputs.files, folder.shard):
            num_units += 1
            if folder.is_finished(unit.name):
                tally, tokens = folder.counts(unit.name)
                if not (options.strict and input_faults(tally)):
                    add(unit, tally, tokens)
                    continue
                # Under `strict` it is processed again, so that the error names the document.
            yield unit

    settings = WorkerSettings(
        folder.recipe,
        folder.tokenizer.text,
        folder.tokenizer.info.eos_token,
        folder.outputs,
        options.strict,
    )
    run_units(settings, missing_units(), options.workers, total, report)
    return folder.completed(num_units)


def _assemble(
    folders: Sequence[BuildFolder], root: Path, progress: ProgressCallback | None
) -> Manifest:
    """Write the store of all build shards' unit outputs into `root`."""
    output_files = []
    for folder in folders:
        found = folder.output_files()
        if len(found) != folder.num_units:
            raise DataError(
                f"{folder.path}: {len(found)} parts of {folder.num_units}: remove it, build it"
                " again"
            )
        output_files += found
    output_files.sort(key=lambda path: path.name)
    first = folders[0]
    return assemble_store(output_files, first.recipe, first.tokenizer, root, first.notes, progress)
