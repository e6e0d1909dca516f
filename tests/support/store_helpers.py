"""Building stores in tests: recipes in one line, and the documents that came out."""

from pathlib import Path
from typing import Any

from data.build.build import build_recipe
from data.inspection.summary import dropped_documents
from data.recipe import DataRecipe, make_recipe
from data.store.reader import Store, TokenStream


def recipe(*paths: Path, source: dict[str, Any] | None = None, **values: Any) -> DataRecipe:
    """A recipe of one source; bytes as tokens, nothing held out, unless said otherwise."""
    sources = [{"paths": paths, **(source or {})}]
    return make_recipe(
        {"source": sources, "tokenizer": "bytes", "held_out_fraction": 0.0, **values}, "test"
    )


def build(out: Path, *paths: Path, **values: Any) -> Store:
    build_recipe(recipe(*paths, **values), out, workers=1)
    return Store.open(out)


def texts(store: Store) -> list[str]:
    """Every document of a store, in order, train before held-out."""
    found = []
    for name in ("train", "held_out"):
        for stream in store.split(name).streams:  # type: ignore[arg-type]
            found += stream_texts(store, stream)
    return found


def stream_texts(store: Store, stream: TokenStream) -> list[str]:
    """Every document of one stream, in order."""
    ends = stream.ends.tolist()
    return [
        store.tokenizer.decode(stream.read(start, end - start).tolist())
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def dropped(store: Store) -> dict[str, str]:
    """Reason by `file name:position`."""
    return {
        f"{Path(row['file']).name}:{row['position']}": row["reason"]
        for row in dropped_documents(store)
    }


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def sources_store(folder: Path, texts: dict[str, list[str]], held_out_fraction: float) -> Path:
    """Build a store of several sources, given by name as their documents; returns its path."""
    for name, documents in texts.items():
        (folder / name).mkdir()
        for index, text in enumerate(documents):
            (folder / name / f"{index:02d}.txt").write_text(text)
    values = {
        "source": [{"name": name, "paths": [folder / name]} for name in texts],
        "tokenizer": "bytes",
        "held_out_fraction": held_out_fraction,
    }
    build_recipe(make_recipe(values, "test"), folder / "store", workers=1)
    return folder / "store"
