"""The table of documents that were left out of a store, each with its reason."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.build.deduplication import DuplicateMap
from data.build.split_assignment import DROPPED, SplitAssignment
from data.build.unit_output_reader import UnitOutputs
from data.store.manifest import FileInfo
from data.store.writer import TABLE_BATCH_ROWS, ArrowFileWriter

DROPPED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("file", "reason", "detail")] + [("position", pa.int64())]
)


def write_dropped_table(
    root: Path, outputs: UnitOutputs, duplicates: DuplicateMap, assignment: SplitAssignment
) -> tuple[FileInfo, Counter[str]]:
    """Write `dropped.arrow`; returns it with the number of dropped documents by reason."""
    writer = ArrowFileWriter(root, "dropped.arrow", DROPPED_SCHEMA)
    counts: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for start, batch in outputs.batches():
        dropped = np.flatnonzero(assignment[start : start + batch.num_rows] == DROPPED)
        table = batch.select(DROPPED_SCHEMA.names).take(pa.array(dropped)).to_pylist()
        for index, values in zip(dropped.tolist(), table, strict=True):
            rows.append(values | _duplicate_reason(outputs, duplicates, start + index))
            counts[rows[-1]["reason"]] += 1
        if len(rows) >= TABLE_BATCH_ROWS:
            _flush(writer, rows)
    _flush(writer, rows)
    return writer.close(), counts


def _flush(writer: ArrowFileWriter, rows: list[dict[str, Any]]) -> None:
    if rows:
        writer.write(*([row[name] for row in rows] for name in DROPPED_SCHEMA.names))
        rows.clear()


def _duplicate_reason(
    outputs: UnitOutputs, duplicates: DuplicateMap, document: int
) -> dict[str, str]:
    """Return reason and original of a duplicate; empty for a document dropped in cleaning."""
    original = int(duplicates.original[document])
    if original < 0:
        return {}
    reason = "duplicate" if duplicates.exact[document] else "near_duplicate"
    return {"reason": reason, "detail": f"of {outputs.location(original)}"}
