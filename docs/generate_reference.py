"""Write the reference pages that follow from the code: commands, configuration, shipped models.

Sphinx calls `generate` at the start of every build (docs/conf.py), so these pages cannot go stale;
they are not committed. By hand: `python docs/generate_reference.py`.

Commands come from Typer's own `typer utils docs`; keys come from the JSON Schemas that pydantic
makes of the models (for experiments: `moe schema`).
"""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
Schema = Mapping[str, Any]

DATA_RECIPE = ("data.recipe", {"source", "tokenizer"})
CLUSTER_FILE = ("slurm.job.cluster_profile", {"default", "profiles"})
"""Module of a pydantic model, and fields by which it is known there."""

SCALARS = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
CONTAINERS = {"array": ("list", "items"), "object": ("table", "additionalProperties")}

NOTE = "<!-- Written by docs/generate_reference.py at build time: do not edit. -->\n\n"


def generate(reference: Path) -> None:
    """Write `commands/`, `config/` and `models.md` below `reference`."""
    write_pages(reference / "commands", command_pages())
    write_pages(reference / "config", config_pages())
    write_page(reference / "models.md", models_page())


def write_pages(folder: Path, pages: Mapping[str, str]) -> None:
    """Write the pages of a folder and remove others that an earlier build left."""
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        write_page(folder / f"{name}.md", text)


def write_page(path: Path, text: str) -> None:
    """Write a page where it changed, so that Sphinx reads again only what is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"{NOTE}{text.strip()}\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


# Commands


COMMAND_INDEX = """# Commands

Made from the code of this version. Every command also prints its options with `--help`. Commands
that answer with data take `--json`: one JSON document on standard output and nothing else there;
progress and messages go to standard error. [Exit codes](../exit_codes.md) are the same everywhere.

| Command | What it does |
|---|---|
{rows}

```{{toctree}}
:hidden:

{names}
```
"""


def command_pages() -> dict[str, str]:
    """Return one page for each top-level command, and their index."""
    text = run("-m", "typer", "moescale", "utils", "docs", "--name", "moe")
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    pages = {part.split("`")[1].removeprefix("moe "): raised(f"## {part}") for part in parts}
    rows = [f"| [`moe {name}`]({name}.md) | {summary(page)} |" for name, page in pages.items()]
    index = COMMAND_INDEX.format(rows="\n".join(rows), names="\n".join(pages))
    return {"index": index, **pages}


def raised(text: str) -> str:
    """Raise headings by one level, so that a page begins with its title."""
    return re.sub(r"^##", "#", text, flags=re.MULTILINE)


def summary(page: str) -> str:
    """Return the first paragraph below a page's title."""
    return page.split("\n\n")[1].replace("\n", " ").replace("|", "\\|")


def run(*arguments: str) -> str:
    """Run Python on this checkout and return what it prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False, text=True,
                          capture_output=True)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout


# Configuration


EXPERIMENT = """One TOML file says everything a run depends on. `moe train FILE --dry-run` shows it
with every default filled in; `--set section.key=value` overrides a key for one command. Keys that
do not exist are refused with the nearest that does."""

RECIPE = """`moe data build --recipe FILE` reads it. Every key also works on the command line, as
`--set clean.near_duplicates=0.8`. [Build a token store](../../guides/build_data.md) has a worked
example."""

CLUSTER = """`~/.config/moescale/slurm.toml` (or the file that `$MOESCALE_SLURM_FILE` names) says
what is true of a cluster rather than of an experiment. [Run on SLURM](../../guides/slurm.md) has a
worked example. Keys of `[profiles.NAME.slurm]` are those of the experiment's
[`[slurm]`](experiment.md#slurm)."""

CONFIG_INDEX = """# Configuration

Three kinds of TOML file, each strict: an unknown key is an error that names the nearest valid one.
These pages are made from the code of this version. `moe schema -o experiment.schema.json` writes
the experiment's JSON Schema for editors that check TOML.

```{toctree}
experiment
data_recipe
cluster
```
"""


def config_pages() -> dict[str, str]:
    """Return the configuration pages by name."""
    experiment = json.loads(run("-m", "moescale", "schema"))
    recipe = schema_of(*DATA_RECIPE)
    cluster = schema_of(*CLUSTER_FILE)
    return {
        "index": CONFIG_INDEX,
        "experiment": page(experiment, "The experiment file", EXPERIMENT),
        "data_recipe": page(recipe, "The data recipe", RECIPE),
        "cluster": page(cluster, "The cluster file", CLUSTER, known={"SlurmConfig"}),
    }


def schema_of(module: str, fields: Set[str]) -> Schema:
    """Return the JSON Schema of the model in a module that has these fields."""
    sys.path.insert(0, str(ROOT))
    found = vars(importlib.import_module(module)).values()
    models = (one for one in found if isinstance(one, type) and issubclass(one, BaseModel))
    model = next((one for one in models if fields <= one.model_fields.keys()), None)
    if model is None:
        raise RuntimeError(f"{module}: no model with {', '.join(sorted(fields))}")
    return model.model_json_schema()


def page(schema: Schema, title: str, intro: str, known: Set[str] = frozenset()) -> str:
    """Return the page of a schema: a table of keys for each section, sections in file order.

    Args:
        schema: The JSON Schema, with `$defs`.
        title: The page's title.
        intro: What stands above the tables.
        known: Definitions described on another page.
    """
    parts = [f"# {title}", intro]
    for path, section in sections(schema, schema, "", known):
        keys = [row(name, value, section, schema) for name, value in plain_keys(section, schema)]
        if not keys:
            continue
        heading = f"## `{path}`" if path else "## Top level"
        text = section.get("description", "") if path else ""
        parts += [
            heading,
            flow(text),
            "\n".join(["| Key | Value | Meaning |", "|---|---|---|", *keys]),
        ]
    return "\n\n".join(part for part in parts if part)


def sections(
    section: Schema, root: Schema, path: str, known: Set[str]
) -> Iterator[tuple[str, Schema]]:
    """Yield every table of a file with its TOML heading, depth first."""
    yield path, section
    for name, value in section.get("properties", {}).items():
        table = table_of(value, root)
        if table is not None and table[0] not in known:
            _, inner, kind = table
            bare = path.strip("[]")
            dotted = f"{bare}.{name}" if bare else name
            dotted += ".NAME" if kind == "named" else ""
            heading = f"[[{dotted}]]" if kind == "list" else f"[{dotted}]"
            yield from sections(inner, root, heading, known)


def plain_keys(section: Schema, root: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the keys of a table that are values, not tables of their own."""
    for name, value in section.get("properties", {}).items():
        if table_of(value, root) is None:
            yield name, value


def table_of(value: Schema, root: Schema) -> tuple[str, Schema, str] | None:
    """Return name, definition and kind (`one`, `list`, `named`) of a table that a key holds."""
    for choice in [value, *value.get("anyOf", [])]:
        for inner, kind in ((choice, "one"), (choice.get("items"), "list"),
                            (choice.get("additionalProperties"), "named")):  # fmt: skip
            if isinstance(inner, Mapping) and "$ref" in inner:
                name = inner["$ref"].rpartition("/")[2]
                if "properties" in root["$defs"][name]:
                    return name, root["$defs"][name], kind
    return None


def row(name: str, value: Schema, section: Schema, root: Schema) -> str:
    """Return a key's line of the table."""
    kind = kind_of(value, root)
    default = value.get("default")
    if name in section.get("required", ()):
        kind += "; **required**"
    elif any(name in choice.get("required", ()) for choice in section.get("anyOf", ())[1:]):
        kind += "; **required** without `preset`"
    elif default not in (None, [], {}):
        kind += f"; default `{toml(default)}`"
    text = flow(value.get("description", "")).replace("|", "\\|")
    return f"| `{name}` | {kind} | {text} |"


def kind_of(value: Schema, root: Schema) -> str:
    """Return what a key may hold, in words."""
    if "$ref" in value:
        return kind_of(root["$defs"][value["$ref"].rpartition("/")[2]], root)
    if "anyOf" in value:
        kinds = [kind_of(one, root) for one in value["anyOf"] if one.get("type") != "null"]
        return ", or ".join(dict.fromkeys(kinds))
    if "enum" in value or "const" in value:
        return ", ".join(f"`{toml(one)}`" for one in value.get("enum", [value.get("const")]))
    if value.get("format") == "path":
        return "path"
    if value["type"] in CONTAINERS:
        word, inside = CONTAINERS[value["type"]]
        inner = value.get(inside)
        return f"{word} of {kind_of(inner, root)}" if isinstance(inner, Mapping) else word
    return SCALARS[value["type"]] + bounds(value)


def bounds(value: Schema) -> str:
    """Return the limits of a number."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return f" {' and '.join(found)}" if found else ""


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    return json.dumps(value, ensure_ascii=False).replace("|", "\\|")


def flow(text: str) -> str:
    """Return a docstring as one line."""
    return " ".join(text.split())


# Shipped models


def models_page() -> str:
    """Return the table of presets: our counts beside what each model's card prints."""
    cards = json.loads(run("-m", "moescale", "presets", "--json"))["presets"]
    names = [card["name"] for card in cards]
    costs = json.loads(run("-m", "moescale", "cost", *names, "--json"))["models"]
    rows = [model_row(card, cost) for card, cost in zip(cards, costs, strict=True)]
    listed = [f"- **{card['title']}** (`{card['name']}`): {sources(card)}" for card in cards]
    return f"""# Shipped models

Each is one TOML file. Its name works as `[model] preset` in an experiment, and with `moe cost`,
`moe bench` and other commands; `moe presets` lists them. *Parameters* and *active* are counted by
moescale; beside them stands what the model's publishers print. Publishers count active parameters
in three ways (see [conventions](../explanation/conventions.md#active-parameters)), so the last two
columns may differ by the embeddings, and by multi-token-prediction layers.

| Preset | Model | Parameters | Active | Card: parameters | Card: active |
|---|---|---:|---:|---:|---:|
{chr(10).join(rows)}

## Where the numbers come from

{chr(10).join(listed)}
"""


def model_row(card: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """Return the line of one preset."""
    printed = (card["total_parameters"] or "", card["active_parameters"] or "")
    counted = (billions(cost["total_parameters"]), billions(cost["active_parameters"]))
    return f"| `{card['name']}` | {card['title']} | {' | '.join((*counted, *printed))} |"


def sources(card: Mapping[str, Any]) -> str:
    """Return where a preset's numbers were read, web addresses as links."""
    return ", ".join(f"<{s}>" if s.startswith("https:") and " " not in s else s
                     for s in card["sources"])  # fmt: skip


def billions(count: float) -> str:
    """Return a parameter count as people write it."""
    return f"{count / 1e9:,.2f}\u00a0B" if count >= 1e9 else f"{count / 1e6:,.2f}\u00a0M"


if __name__ == "__main__":
    shutil.rmtree(ROOT / "docs/reference/commands", ignore_errors=True)
    generate(ROOT / "docs/reference")
