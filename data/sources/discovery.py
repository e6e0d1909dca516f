"""Finding the input files of a build: formats, what folders contain, what is ignored."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.described_files import file_inside, read_text_file
from data.errors import DataError
from data.plain_text import printable
from data.recipe import DataRecipe
from data.storage.bounded_json import parse_json
from data.storage.link_bounds import LinkBounds
from data.store.manifest import BUILD_STATE_FILE, MANIFEST_FILE, check_source_name
from data.tokenization.info import TOKENIZER_FILE

COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
UNREAD_COMPRESSIONS = frozenset(
    f".{suffix}" for suffix in ("xz", "lzma", "lz4", "br", "7z", "rar", "zip", "tar", "tgz")
)
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
TEXT_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("txt", "text", "md", "rst", "tex", "html", "css", "sql", "sh"),
        *("py", "pyi", "c", "h", "cc", "cpp", "hpp", "cu", "cuh", "rs", "go", "java", "kt"),
        *("scala", "js", "ts", "jsx", "tsx", "rb", "php", "pl", "lua", "r", "jl", "m", "swift"),
        *("cs", "hs", "ml"),
    )
)
MEGATRON_SUFFIXES = (".bin", ".idx")

FileFormat = Literal["text", "json", "parquet", "arrow"]


@dataclass(frozen=True)
class InputFile:
    """One input file of a source."""

    source: int
    path: Path
    num_bytes: int
    """0 for a file whose status cannot be read, which reading it will report."""
    modified_ns: int
    """When it was last changed, ns since 1970."""

    @property
    def format(self) -> FileFormat:
        """The file's format, from its name, compression aside."""
        return file_format(self.path)

    @property
    def compression(self) -> str | None:
        """Arrow's name of the compression around the file, if any."""
        return compression(self.path)


@dataclass(frozen=True)
class InputFiles:
    """All input files of a recipe."""

    files: list[InputFile]
    """In document order."""
    ignored: Counter[str]
    """Files in the recipe's folders that are in no supported format, by suffix."""


def find_input_files(recipe: DataRecipe) -> InputFiles:
    """Find every input file.

    Raises:
        DataError: A path is missing, or a folder cannot be read or has no file to read.
    """
    files = []
    ignored: Counter[str] = Counter()
    for index, source in enumerate(recipe.source):
        check_source_name(source.name, "the recipe")
        for root in source.paths:
            paths = list(walk_files(root, ignored))
            if not paths:
                is_store = root.is_dir() and _is_store(os.listdir(root))
                why = "a token store, not documents" if is_store else "no documents in it"
                raise DataError(f"{root}: {why}: give text, JSONL, Parquet or Arrow files")
            files += [_input_file(index, path) for path in paths]
    return InputFiles(files, ignored)


def _input_file(source: int, path: Path) -> InputFile:
    try:
        status = path.stat()
    except OSError:
        return InputFile(source, path, 0, 0)
    return InputFile(source, path, status.st_size, status.st_mtime_ns)


def compression(path: Path) -> str | None:
    """Return Arrow's name of the compression that a file's name tells, if any."""
    return COMPRESSIONS.get(path.suffix.lower())


def refuse_unread_compression(path: Path) -> None:
    """Refuse a file whose name tells a compression or an archive that is not read.

    Raises:
        DataError: It does.
    """
    for suffix in (path.suffix.lower(), _inner_suffix(path)):
        if suffix in UNREAD_COMPRESSIONS:
            raise DataError(f"{path}: {suffix} is not read: unpack it (.gz, .zst, .bz2 are read)")


def file_format(path: Path) -> FileFormat:
    """Return a file's format by its name, compression aside."""
    suffix = _inner_suffix(path)
    if suffix in JSON_SUFFIXES:
        return "json"
    if suffix == ".parquet":
        return "parquet"
    return "arrow" if suffix in TABLE_SUFFIXES else "text"


def _inner_suffix(path: Path) -> str:
    return (Path(path.stem) if compression(path) else path).suffix.lower()


def walk_files(root: Path, ignored: Counter[str] | None = None) -> Iterator[Path]:
    """Yield the files at or below a path, in order; of a saved dataset, its data files.

    Hidden files, stores and unfinished builds are skipped, files in unknown formats counted in
    `ignored`; a path that is a file is read whatever its name. A path may be a link; those below it
    are followed where they stay inside.

    Raises:
        DataError: The path does not exist, a folder cannot be read, a link below it leads out of
            it, or another command reads it.
    """
    if os.path.isdir(root):
        yield from _folder_files(root, ignored)
        return
    if root.suffix.lower() in MEGATRON_SUFFIXES:
        raise DataError(f"{root}: Megatron's format: use `moe data import` on the pair")
    refuse_unread_compression(root)
    try:
        root.stat()
    except FileNotFoundError:
        raise DataError(f"{root}: no such file or folder") from None
    except OSError as error:
        raise _unreadable(error) from None
    yield root


def _folder_files(root: Path, ignored: Counter[str] | None) -> Iterator[Path]:
    bounds = LinkBounds(root)
    for name in ("dataset_dict.json", "state.json", "train"):
        _refuse_outside(root / name, root, bounds)
    if os.path.isfile(root / "dataset_dict.json"):
        splits = _saved_names(root / "dataset_dict.json", "splits")
        if "train" not in splits:
            raise DataError(f"{root}: a dataset with splits {', '.join(splits)}: name one's folder")
        yield from walk_files(root / "train", ignored)
    elif os.path.isfile(root / "state.json"):
        for name in _saved_names(root / "state.json", "_data_files"):
            with suppress(OSError):  # of a missing file, which is counted and named later
                file_inside(root, name)
            yield root / name
    else:
        for path in _below(root, bounds):
            if _is_input(path):
                _refuse_outside(path, root, bounds)
                yield path
            elif ignored is not None:
                ignored[printable(path.suffix.removeprefix(".")) or "no suffix"] += 1


def _saved_names(path: Path, key: str) -> list[str]:
    """Read names from a file that `datasets.save_to_disk` writes beside its data."""
    try:
        entries = parse_json(read_text_file(path))[key]
        names = [entry if isinstance(entry, str) else entry["filename"] for entry in entries]
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        names = [None]
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: not of a dataset saved by Hugging Face datasets")
    return names


def _refuse_outside(path: Path, root: Path, bounds: LinkBounds) -> None:
    """Refuse a link out of the folder that a recipe names; one to nothing is told when it is read.

    Raises:
        DataError: It leads outside.
    """
    if os.path.islink(path) and os.path.exists(path) and (target := bounds.target_outside(path)):
        raise DataError(
            f"{path}: a link that leads out of {root}, to {target}: name that as a path of its own"
            " and remove the link, or put the files themselves there"
        )


def _below(root: Path, bounds: LinkBounds) -> list[Path]:
    """Return the files below a folder, sorted by path; each linked folder is followed once."""

    def refuse(error: OSError) -> None:
        raise _unreadable(error)

    files: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        real_path = os.path.realpath(parent)
        if real_path in seen or _is_store(names):
            folders.clear()
            continue
        seen.add(real_path)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            _refuse_outside(Path(parent, name), root, bounds)
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _is_store(names: list[str]) -> bool:
    """Return whether the files of a folder are those of a store, complete or unfinished."""
    return TOKENIZER_FILE in names and (MANIFEST_FILE in names or BUILD_STATE_FILE in names)


def _unreadable(error: OSError) -> DataError:
    return DataError(f"{error.filename}: {error.strerror}: make it readable or name others")


def _is_input(path: Path) -> bool:
    """Return whether a file in a folder is an input; plain `.json` there is mostly settings.

    A file whose status cannot be read counts by its name; reading it will report the error.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        return False
    suffix = _inner_suffix(path)
    known = suffix in TEXT_SUFFIXES or suffix in JSON_SUFFIXES or suffix in TABLE_SUFFIXES
    return known and path.suffix.lower() != ".json"
