"""Cutting sources into units of work that any process can do alone, in a fixed order.

A unit is about 16 MiB of input. Its number depends on the sources only, so that shards, workers
and restarts agree on it. Plain JSON lines are cut by byte range, tables by row group; compressed
and separated text, which cannot be entered in the middle, is cut by the process that plans.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from data.cutting import cut_stream
from data.errors import DataError
from data.recipe import Recipe, SourceRecipe

UNIT_BYTES = 1 << 24
JSON_SUFFIXES = (".jsonl", ".ndjson")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
TEXT_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("txt", "text", "md", "rst", "tex", "html", "css", "sql", "sh"),
        *("py", "pyi", "c", "h", "cc", "cpp", "hpp", "cu", "cuh", "rs", "go", "java", "kt"),
        *("scala", "js", "ts", "jsx", "tsx", "rb", "php", "pl", "lua", "r", "jl", "m", "swift"),
        *("cs", "hs", "ml"),
    )
)
TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")

Kind = Literal["text", "json", "parquet", "arrow"]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit of work; `kind` and `payload` tell how its documents are read."""

    source: int
    """Index of the source in the recipe."""
    file: int
    """Number of the (first) file among all files of the recipe."""
    block: int
    """Number of the unit within the file."""
    kind: Kind
    paths: tuple[Path, ...]
    start: int = 0
    """First byte (json), row group (parquet) or record batch (arrow)."""
    end: int = 0
    """One past the last."""
    first_row: int = 0
    """Row of the table at which the unit starts."""
    payload: tuple[bytes, ...] | None = field(default=None, repr=False)
    """Documents cut from a stream, where it cannot be read from the middle."""
    positions: tuple[int, ...] = ()
    """Byte offset of each document of `payload`."""
    faults: tuple[tuple[int, str, str], ...] = ()
    """(offset, reason, detail) of what the cutting process could not hand on."""
    num_bytes: int
    """Input bytes this unit accounts for, for progress."""

    @property
    def name(self) -> str:
        """Name that sorts in document order."""
        return f"{self.source:04d}-{self.file:08d}-{self.block:08d}"


@dataclass(frozen=True)
class InputFile:
    """One input file of a source."""

    source: int
    path: Path
    num_bytes: int
    modified_ns: int
    """When it was last changed, ns since 1970."""


def list_files(recipe: Recipe) -> list[InputFile]:
    """Return every input file in document order.

    Raises:
        DataError: A path is missing, or a folder holds nothing that can be read.
    """
    files = []
    for index, source in enumerate(recipe.source):
        for root in source.paths:
            found = list(walk_files(root))
            if not found:
                raise DataError(f"{root}: no text, JSONL, Parquet or Arrow files in it")
            files += [_input_file(index, path) for path in found]
    return files


def plan_units(recipe: Recipe, files: list[InputFile]) -> Iterator[Unit]:
    """Yield all units in document order; small whole-document files share one."""
    group: list[tuple[int, InputFile]] = []
    for number, file in enumerate(files):
        source = recipe.source[file.source]
        whole = file_kind(file.path) == "text" and source.separator is None
        whole = whole and file.path.suffix not in COMPRESSIONS
        if group and (not whole or not _fits(group, file)):
            yield _grouped(group)
            group = []
        if whole:
            group.append((number, file))
        else:
            yield from _file_units(number, file, source, recipe.max_document_mib << 20)
    if group:
        yield _grouped(group)


def _input_file(source: int, path: Path) -> InputFile:
    status = path.stat()
    return InputFile(source, path, status.st_size, status.st_mtime_ns)


def _fits(group: list[tuple[int, InputFile]], file: InputFile) -> bool:
    same = group[0][1].source == file.source
    return same and sum(f.num_bytes for _, f in group) + file.num_bytes <= UNIT_BYTES


def _grouped(group: list[tuple[int, InputFile]]) -> Unit:
    number, first = group[0]
    return Unit(
        source=first.source,
        file=number,
        block=0,
        kind="text",
        paths=tuple(file.path for _, file in group),
        num_bytes=sum(file.num_bytes for _, file in group),
    )


def _file_units(
    number: int, file: InputFile, source: SourceRecipe, max_document_bytes: int
) -> Iterator[Unit]:
    kind = file_kind(file.path)
    common: dict[str, Any] = {"source": file.source, "file": number, "kind": kind}
    common["paths"] = (file.path,)
    if kind in ("parquet", "arrow"):
        yield from _table_units(file, source.text_column, common)
    elif kind == "json" and file.path.suffix not in COMPRESSIONS:
        for block, start in enumerate(range(0, max(file.num_bytes, 1), UNIT_BYTES)):
            end = min(start + UNIT_BYTES, file.num_bytes)
            yield Unit(block=block, start=start, end=end, num_bytes=end - start, **common)
    else:
        separator = b"\n" if kind == "json" else (source.separator or "").encode()
        compression = COMPRESSIONS.get(file.path.suffix)
        pieces = cut_stream(file.path, compression, separator, UNIT_BYTES, max_document_bytes)
        for block, piece in enumerate(pieces):
            yield Unit(
                block=block,
                payload=piece.documents,
                positions=piece.positions,
                faults=piece.faults,
                num_bytes=piece.num_bytes,
                **common,
            )


def _table_units(file: InputFile, column: str, common: dict[str, Any]) -> Iterator[Unit]:
    try:
        schema, sizes = _table_layout(file, common["kind"])
    except (OSError, pa.ArrowException) as error:
        fault = (0, "unreadable", " ".join(str(error).split()))
        yield Unit(block=0, payload=(), faults=(fault,), num_bytes=file.num_bytes, **common)
        return
    if column not in schema.names:
        raise DataError(
            f"{file.path}: no column {column!r}; it has {', '.join(schema.names)}: choose one with"
            " --text-column"
        )
    if not _is_text(schema.field(column).type):
        raise DataError(f"{file.path}: column {column!r} is {schema.field(column).type}, not text")
    total = max(sum(size for size, _ in sizes), 1)
    start = block = first_row = filled = rows = 0
    for index, (size, num_rows) in enumerate(sizes):
        filled, rows = filled + size, rows + num_rows
        if filled >= UNIT_BYTES or index == len(sizes) - 1:
            place: dict[str, Any] = {
                "block": block,
                "start": start,
                "end": index + 1,
                "first_row": first_row,
            }
            yield Unit(num_bytes=file.num_bytes * filled // total, **place, **common)
            start, block, first_row = index + 1, block + 1, first_row + rows
            filled = rows = 0


def _table_layout(file: InputFile, kind: Kind) -> tuple[pa.Schema, list[tuple[int, int]]]:
    """Return the schema, and bytes and rows of each row group or record batch."""
    if kind == "parquet":
        with pq.ParquetFile(file.path) as table:
            groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
            return table.schema_arrow, [(g.total_byte_size, g.num_rows) for g in groups]
    with pa.memory_map(str(file.path)) as mapped:
        schema, batches = arrow_batches(mapped)
        return schema, [(batch.nbytes, batch.num_rows) for batch in batches]


def arrow_batches(mapped: Any) -> tuple[pa.Schema, Iterator[Any]]:
    """Return the schema and record batches of an Arrow file of either IPC format."""
    try:
        reader = pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        stream = pa.ipc.open_stream(mapped)
        return stream.schema, iter(stream)
    return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def file_kind(path: Path) -> Kind:
    """Tell a file's format by its name, compression aside."""
    suffix = path.suffix
    if suffix in COMPRESSIONS:
        suffix = Path(path.stem).suffix
    if suffix in JSON_SUFFIXES:
        return "json"
    if suffix == ".parquet":
        return "parquet"
    return "arrow" if suffix in TABLE_SUFFIXES else "text"


def walk_files(root: Path) -> Iterator[Path]:
    """Yield the readable files at or below a path, in order; a saved dataset's data files."""
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    if root.is_file():
        yield root
    elif (root / "dataset_dict.json").is_file():
        splits = json.loads((root / "dataset_dict.json").read_text())["splits"]
        if "train" not in splits:
            raise DataError(f"{root}: a dataset with splits {', '.join(splits)}: name one's folder")
        yield from walk_files(root / "train")
    elif (root / "state.json").is_file():
        names = json.loads((root / "state.json").read_text())["_data_files"]
        yield from (root / name["filename"] for name in names)
    else:
        yield from (path for path in sorted(root.rglob("*")) if _wanted(path, root))


def _wanted(path: Path, root: Path) -> bool:
    if any(part.startswith(".") for part in path.relative_to(root).parts):
        return False
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    known = suffix in TEXT_SUFFIXES or suffix in JSON_SUFFIXES or suffix in TABLE_SUFFIXES
    return known and path.is_file()
