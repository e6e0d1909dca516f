"""The recipe of a build: sources, tokenizer and cleaning, from a TOML file or the command line."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from data.described_files import refuse_special
from data.dotted_keys import apply_override
from data.errors import DataError
from data.frozen_model import FrozenModel
from data.storage.bounded_json import read_toml

RECIPE_BYTES = 16 << 20
SHOWN_CHARACTERS = 100
"""Of a wrong value in a message."""

QualityRules = Literal["gopher_quality", "gopher_repetition", "c4"]
LanguageCode = Annotated[str, Field(pattern="^[a-z]{2,3}$")]


class SourceRecipe(FrozenModel):
    """One named source: files, folders, or Hugging Face datasets saved to disk."""

    name: str = Field(default="text", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the store and in `data.weights`."""
    paths: tuple[Path, ...] = Field(min_length=1)
    """Files and folders; a recipe's relative paths start at the recipe's folder."""
    text_column: str = "text"
    """Column or key that holds the text, in JSONL, Parquet, Arrow and saved datasets."""
    separator: str | None = Field(default=None, min_length=1)
    """What ends a document in a text file, for example `<|endoftext|>`; none: one file, one
    document. White space alone between two of them, such as a blank line, is no document."""
    weight: float | None = Field(default=None, gt=0)
    """Relative weight of this source in training; where none has one: in proportion to tokens."""


class CleanRecipe(FrozenModel):
    """Cleaning steps, in the order in which they run; each is off unless set."""

    unicode: Literal["none", "nfc", "nfkc"] = "none"
    """Unicode normalization form."""
    min_characters: int = Field(default=1, ge=1)
    """Shorter documents are dropped."""
    max_characters: int | None = Field(default=None, ge=1)
    """Longer documents are dropped."""
    quality: tuple[QualityRules, ...] = ()
    """Rule sets of Gopher (arXiv:2112.11446, appendix A1.1) and C4 (arXiv:1910.10683, 2.2: any `{`
    drops the page)."""
    languages: tuple[LanguageCode, ...] = ()
    """Keep only documents in these languages, as py3langid identifies them: its codes, which are
    ISO 639-1 (`de`), or 639-3 (`yue`) where a language has none there."""
    tag_language: bool = False
    """Identify every document's language with py3langid, count it and write it to the store; drops
    none."""
    personal_data: Literal["keep", "mask", "drop"] = "keep"
    """What happens to e-mail addresses, phone, IP, credit card and bank account numbers."""
    decontaminate: tuple[Path, ...] = ()
    """Evaluation files: a document that shares 13 words in a row with one is dropped. Words are
    compared after NFKC, without case and invisible characters, on both sides. Of scripts without
    spaces as many letters are compared as 13 words are long."""
    exact_duplicates: bool = True
    """Keep only the first of documents with equal (cleaned) text."""
    near_duplicates: float | None = Field(default=None, gt=0.3, lt=1)
    """Jaccard similarity of word 5-grams from which documents are near duplicates; at this
    similarity about 97% are found, and pairs somewhat below it (at 0.8, half of those at 0.75) as
    well. Only the first is kept."""

    @property
    def needs_language(self) -> bool:
        """Whether the language of documents must be identified."""
        return self.tag_language or bool(self.languages)


class CanaryRecipe(FrozenModel):
    """Secrets planted in the training split, to measure later what a model memorizes."""

    count: int = Field(default=10, ge=1, le=1_000_000)
    """Distinct canaries for each entry of `repeats`."""
    repeats: tuple[Annotated[int, Field(ge=0, le=1_000_000)], ...] = (0, 1, 10)
    """How often each is planted; 0: never, for comparison."""
    seed: int = Field(default=0, ge=0)
    """Seed of the secrets and of their positions."""


class DataRecipe(FrozenModel):
    """Everything that decides what a store contains."""

    source: tuple[SourceRecipe, ...] = Field(min_length=1)
    """Sources, in the order in which documents win over later duplicates."""
    tokenizer: str = "bpe:4096"
    """`bytes`, `bpe:SIZE` (trained here), a `tokenizer.json`, or a folder that holds one."""
    eos_token: str | None = None
    """The token that ends a document. Default: the tokenizer's own."""
    held_out_fraction: float = Field(default=0.02, ge=0, le=0.5)
    """Fraction of documents held out for evaluation, chosen by the hash of their text."""
    max_document_mib: int = Field(default=8, ge=1, le=1024)
    """Larger documents are dropped, MiB; bounds the memory of every worker."""
    clean: CleanRecipe = CleanRecipe()
    canaries: CanaryRecipe | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [source.name for source in self.source]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ValueError(f"two sources are named {repeated!r}: rename one")
        if len({source.weight is None for source in self.source}) == 2:
            raise ValueError("weight: give every source one, or none")
        return self


def read_recipe(path: Path) -> DataRecipe:
    """Read a recipe file; its relative paths start at its own folder.

    Raises:
        DataError: It is missing, is not TOML, or breaks a rule; names the key.
    """
    try:
        values = read_toml(path, max_bytes=RECIPE_BYTES)
    except FileNotFoundError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    recipe = _resolve_paths(make_recipe(values, str(path)), path.parent)
    for named in (*(p for s in recipe.source for p in s.paths), *recipe.clean.decontaminate):
        refuse_special(named)
    return recipe


def make_recipe(values: dict[str, Any], origin: str, overrides: Sequence[str] = ()) -> DataRecipe:
    """Make a recipe from plain values, after `KEY=VALUE` overrides (dotted keys, TOML values).

    Raises:
        DataError: A value breaks a rule; names the key.
        InputError: An override is not of that form.
    """
    for override in overrides:
        apply_override(
            values,
            override,
            usage="write KEY=VALUE, for example clean.unicode=nfc",
            not_a_table="is not a table: write it in a recipe file",
        )
    try:
        return DataRecipe.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{origin}: {describe_recipe_error(error)}") from None


def describe_recipe_error(error: ValidationError) -> str:
    """Describe the first fault of a recipe in one line: key, value, rule."""
    fault = error.errors(include_url=False)[0]
    key = ".".join(map(str, fault["loc"]))
    key = key if key.isprintable() else ascii(key)
    if fault["type"] == "extra_forbidden":
        similar = get_close_matches(str(fault["loc"][-1]), _keys(DataRecipe), n=1)
        return f"unknown key {key}" + (f": did you mean {similar[0]}?" if similar else "")
    message = fault["msg"].removeprefix("Value error, ")
    given = "" if isinstance(fault["input"], dict) else f" = {_shown(fault['input'])}"
    if fault["loc"][:2] == ("clean", "languages"):
        message = "write codes such as en, de or zh, in lower case"
    return f"{key}{given}: {message}" if key else message


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of numbers with thousands of digits, of deep nesting
        return f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _keys(section: type[BaseModel]) -> list[str]:
    sections = (CanaryRecipe, CleanRecipe, SourceRecipe) if section is DataRecipe else ()
    return [*section.model_fields, *(key for inner in sections for key in _keys(inner))]


def _resolve_paths(recipe: DataRecipe, folder: Path) -> DataRecipe:
    """Return a recipe whose relative paths start at `folder`."""
    sources = tuple(
        source.model_copy(update={"paths": tuple(folder / path for path in source.paths)})
        for source in recipe.source
    )
    evaluations = tuple(folder / path for path in recipe.clean.decontaminate)
    clean = recipe.clean.model_copy(update={"decontaminate": evaluations})
    tokenizer = recipe.tokenizer
    if tokenizer != "bytes" and not tokenizer.startswith("bpe:"):
        tokenizer = str(folder / tokenizer)
    return recipe.model_copy(update={"source": sources, "clean": clean, "tokenizer": tokenizer})
