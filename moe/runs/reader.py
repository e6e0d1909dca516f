"""Reading run directories: what a training run left behind, checked and typed."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from moe.errors import ConfigError
from parallel.measurement.measurement import Measurement

RECORD_FORMAT = 1
MAX_RUNS = 200
LEDGER_KEYS = ("total_parameters", "active_parameters", "training_flops_per_token")


@dataclass(frozen=True)
class Run:
    """One training run as its directory tells it."""

    path: Path
    record: Mapping[str, Any]
    """`record.json`."""
    experiment: Mapping[str, Any] = field(default_factory=dict)
    """`experiment.toml`; empty where it is not there."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `metrics.jsonl`, by step."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `evaluations.jsonl`: step, tokens, loss (nats/token)."""
    expert_load: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `expert_load.jsonl`: step, layers, counts."""
    routing: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `routing.jsonl`: step, layers, and one number a layer for each measure."""
    routing_maps: Mapping[str, Any] = field(default_factory=dict)
    """`routing_maps.json`: layers, sources, counts, together; empty where it is not there."""

    @property
    def name(self) -> str:
        """Name given by the user, or the directory's."""
        return str(self.record.get("name") or self.path.name)

    @property
    def run_id(self) -> str:
        """What names the run among others: its own identifier, or its directory."""
        return str(self.record.get("run_id") or self.path.name)

    @property
    def ledger(self) -> Mapping[str, Any]:
        """The cost ledger (`moe cost --json`)."""
        ledger: Mapping[str, Any] = self.record["ledger"]
        return ledger

    @property
    def total_parameters(self) -> int:
        """All parameters."""
        return int(self.ledger["total_parameters"])

    @property
    def active_parameters(self) -> int:
        """Parameters one token meets."""
        return int(self.ledger["active_parameters"])

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token by the ledger's convention."""
        return float(self.ledger["training_flops_per_token"])

    @property
    def sparse(self) -> bool:
        """Whether some parameters rest while a token passes."""
        if self.experiment:
            return self.num_experts is not None
        return self.total_parameters > self.active_parameters

    @property
    def num_experts(self) -> int | None:
        """Routed experts a layer; `None` for a dense model or without `experiment.toml`."""
        return (self.experiment.get("model", {}).get("moe") or {}).get("num_experts")

    @property
    def seed(self) -> int:
        """Seed of the initial weights."""
        return int(self.experiment.get("train", {}).get("seed", 0))

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return int(self.record.get("tokens") or 0)

    def training_flops(self, counts: Mapping[str, Any]) -> float:
        """Return the training FLOPs behind a row, or the record: of padding too.

        A run recorded before `positions` were counted as padding tokens.
        """
        return float(counts.get("positions", counts["tokens"])) * self.flops_per_token

    @cached_property
    def final_loss(self) -> float | None:
        """Held-out loss at the end, nats/token."""
        if self.record.get("final_loss") is not None:
            return float(self.record["final_loss"])
        losses = [row["loss"] for row in self.evaluations if row["loss"] is not None]
        return float(losses[-1]) if losses else None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens trained in a second of wall time."""
        value = self.record.get("tokens_per_s")
        return None if value is None else float(value)

    def energy(self, name: str, unit: str) -> Measurement:
        """Return one measurement of the energy section (`total`, `per_token`, ...)."""
        section = self.record.get("energy") or {}
        values = section.get(name)
        if not isinstance(values, Mapping):
            return Measurement.missing(unit, "none", "the run had no meter")
        return Measurement.from_json(values)


def read_run(path: Path) -> Run:
    """Read one run directory; a torn last line (a killed run) is passed over.

    Raises:
        ConfigError: Not a run directory, or a damaged file; names it.
    """
    return Run(
        path=path,
        record=_read_record(path),
        experiment=_read_experiment(path / "experiment.toml"),
        metrics=_read_rows(path / "metrics.jsonl", ("step", "tokens")),
        evaluations=_read_rows(path / "evaluations.jsonl", ("step", "tokens", "loss")),
        expert_load=_read_rows(path / "expert_load.jsonl", ("step", "layers", "counts")),
        routing=_read_rows(path / "routing.jsonl", ("step", "layers")),
        routing_maps=_read_maps(path / "routing_maps.json"),
    )


def read_runs(run_dirs: Sequence[Path]) -> list[Run]:
    """Read all run directories.

    Raises:
        ConfigError: One cannot be read, one is given twice, none or too many are given.
    """
    if not 1 <= len(run_dirs) <= MAX_RUNS:
        raise ConfigError(f"{len(run_dirs)} runs: a report compares 1 to {MAX_RUNS}")
    seen: set[Path] = set()
    for path in run_dirs:
        if path.resolve() in seen:
            raise ConfigError(f"{path}: given twice; name each run once")
        seen.add(path.resolve())
    return [read_run(path) for path in run_dirs]


def _read_record(path: Path) -> dict[str, Any]:
    file = path / "record.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: not a run directory (no record.json): give the directory that"
            " `moe train` printed as run_dir"
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: damaged, not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("format") != RECORD_FORMAT:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise ConfigError(
            f"{file}: format {found!r} is not {RECORD_FORMAT}: read it with the version of"
            " moescale that wrote it"
        )
    ledger = record.get("ledger")
    missing = [key for key in LEDGER_KEYS if not isinstance(ledger, dict) or key not in ledger]
    if missing:
        raise ConfigError(f"{file}: damaged, ledger lacks {', '.join(missing)}")
    return record


def _read_experiment(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: damaged, not TOML: {error}") from None


def _read_maps(file: Path) -> dict[str, Any]:
    try:
        maps: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return maps
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: damaged, not JSON: {error}") from None


def _read_rows(file: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a file's rows, the last of each step; a resumed run may have logged a step twice."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise ConfigError(f"{file}: line {number} is damaged, not JSON") from None
        if not isinstance(row, dict) or any(key not in row for key in keys):
            raise ConfigError(f"{file}: line {number} lacks {', '.join(keys)}")
        rows[int(row["step"])] = row
    return [rows[step] for step in sorted(rows)]
