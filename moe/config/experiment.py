"""One experiment file: read, overridden, checked, hashed and written back."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator

from data.config import DataConfig
from data.dotted_keys import apply_override
from data.frozen_model import FrozenModel
from moe.config.energy import EnergyConfig
from moe.config.explain import explain
from moe.config.kernels import kernel_fault, packed_fault
from moe.config.locating import model_file
from moe.config.model import ModelConfig
from moe.config.presets.catalog import preset_model
from moe.config.slurm import SlurmConfig
from moe.config.toml_file import read_toml
from moe.config.track import TrackConfig
from moe.config.train import TrainConfig
from moe.config.truth_values import truth_for_number
from moe.errors import ConfigError
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision

Model = TypeVar("Model", bound=BaseModel)


class Experiment(FrozenModel):
    """Everything a run depends on; equal experiments have equal hashes."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    """Name of the run; its directory is `<name>-<hash>`."""
    model: ModelConfig
    data: DataConfig = DataConfig()
    parallel: Layout = Layout()
    precision: Precision = Precision()
    train: TrainConfig
    energy: EnergyConfig = EnergyConfig()
    slurm: SlurmConfig = SlurmConfig()
    track: TrackConfig = TrackConfig()

    @model_validator(mode="before")
    @classmethod
    def _pack_conversations(cls, values: Any) -> Any:
        """Fill in how conversations lie in sequences; what is written is kept, and checked."""
        if not isinstance(values, Mapping) or _at(values, "train", "mode") != "sft":
            return values
        data = values.get("data", {})
        whole = {"packing": "best_fit", "document_mask": True}
        return {**values, "data": _merged(whole, data)} if isinstance(data, Mapping) else values

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        data, mode = self.data, self.train.mode
        if mode == "sft" and not (data.packing == "best_fit" and data.document_mask):
            raise ValueError(
                'train.mode = "sft" keeps conversations whole and apart: remove data.packing and'
                " data.document_mask"
            )
        if mode == "dpo" and (data.packing != "concatenate" or data.document_mask):
            raise ValueError(
                'train.mode = "dpo" has one conversation in a sequence: remove data.packing and'
                " data.document_mask"
            )
        if mode == "dpo" and self.model.mtp_layers:
            raise ValueError(
                'train.mode = "dpo" does not train multi-token-prediction layers: set'
                " model.mtp_layers = 0"
            )
        if mode == "pretrain" and data.too_long != "refuse":
            raise ValueError("data.too_long belongs to train.mode sft and dpo: remove it")
        return self

    @model_validator(mode="after")
    def _check_across(self) -> Self:
        if self.train.seq_len > self.model.max_seq_len:
            raise ValueError(
                f"train.seq_len={self.train.seq_len} is longer than the model's"
                f" max_seq_len={self.model.max_seq_len}: shorten it or raise model.max_seq_len"
            )
        if fault := kernel_fault(self.model, self.parallel, self.precision):
            raise ValueError(fault)
        size = self.train.micro_batch_size
        if self.data.document_mask and (fault := packed_fault(self.parallel, self.precision, size)):
            raise ValueError(fault)
        return self

    @property
    def content_hash(self) -> str:
        """Eight hexadecimal digits of what training depends on, not where it is shown.

        Of what differs from defaults: a field that a later version adds changes no name.
        """
        content = self.model_dump(
            mode="json", exclude={"name", "slurm", "energy", "track"}, exclude_defaults=True
        )
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def may_continue_as(self, other: "Experiment") -> bool:
        """Whether a run of this experiment may go on as `other`: same training, maybe elsewhere.

        Layout, precision of kernels, intervals, and how and where data is read may change; what
        the loss depends on may not. Weights that change from a later step on are checked where
        the checkpoint is read: there it is known which step is later.
        """
        return self._training_values() == other._training_values()

    def _training_values(self) -> dict[str, Any]:
        values = self.model_dump(mode="json", include={"model", "data", "train"})
        for free in ("log_interval", "eval_interval", "checkpoint_interval", "keep_checkpoints",
                     "keep_every", "on_nonfinite", "on_spike", "spike_factor", "spike_window",
                     "max_skipped", "on_failed_save", "eval_sequences",
                     "micro_batch_size"):  # fmt: skip
            values["train"].pop(free)
        for reading in ("store", "more_stores", "changes", "max_epochs", "feed", "prefetch_steps",
                        "workers", "pin_memory"):  # fmt: skip
            values["data"].pop(reading)
        return values

    def to_toml(self) -> str:
        """Return the resolved experiment as TOML text that reads back to an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def load_experiment(
    path: Path, overrides: Iterable[str] = (), *, follow_link: bool = True
) -> Experiment:
    """Read an experiment file and apply `a.b=value` overrides; `follow_link` as in `read_toml`.

    Raises:
        ConfigError: The file is missing, is not TOML, or breaks a rule; names key and remedy.
        InputError: An override is not of that form.
    """
    values = read_toml(path, follow_link=follow_link)
    for override in overrides:
        apply_override(values, override)
    return make_experiment(values, origin=str(path))


def make_experiment(values: Mapping[str, Any], origin: str = "experiment") -> Experiment:
    """Check plain values as an experiment, the model's preset filled in."""
    values = {**values}
    init = _at(values, "train", "init")
    if isinstance(values.get("model", {}), Mapping):
        values["model"] = _with_preset(values.get("model", {}))
        if isinstance(init, str | Path) and not {"preset", "num_layers"} & {*values["model"]}:
            values["model"] = _merged(_model_of(Path(init)), values["model"])
    return validated(Experiment, values, origin)


def _model_of(init: Path) -> Mapping[str, Any]:
    """Return the `[model]` table of what `train.init` names."""
    file = model_file(init)
    if file is None:
        raise ConfigError(
            f"train.init = {init}: neither a run directory nor a checkpoint with a model.toml"
        )
    return _model_table(file, follow_link=False)


def _at(values: Mapping[str, Any], section: str, key: str) -> Any:
    """Return a raw value of a section, or None."""
    table = values.get(section)
    return table.get(key) if isinstance(table, Mapping) else getattr(table, key, None)


def load_model(name_or_path: str, *, follow_link: bool = True) -> ModelConfig:
    """Read a model: a preset's name or alias, or a TOML file with a `[model]` table.

    `follow_link` as in `read_toml`.

    Raises:
        ConfigError: No such preset or file, or the model breaks a rule.
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        table = _model_table(Path(name_or_path), follow_link=follow_link)
        return validated(ModelConfig, _with_preset(table), name_or_path, ("model",))
    return validated(ModelConfig, _with_preset({"preset": name_or_path}), name_or_path)


def _model_table(file: Path, *, follow_link: bool) -> Mapping[str, Any]:
    """Return the `[model]` table of a file."""
    table = read_toml(file, follow_link=follow_link).get("model")
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: no [model] table")
    return table


def validated(
    kind: type[Model],
    values: Mapping[str, Any],
    origin: str,
    prefix: tuple[str, ...] = (),
    *,
    by_hand: bool = True,
) -> Model:
    """Check plain values as a section of the given kind; `by_hand` as in `explain`.

    Raises:
        ConfigError: Names `origin`, the key (after `prefix`), the rule and what is near.
    """
    if by_hand and (key := truth_for_number(kind, values)):
        name = ".".join((*prefix, key))
        raise ConfigError(f"{origin}: {name} is true or false: write a number")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, kind, prefix, by_hand=by_hand)}") from None


def _with_preset(model: Mapping[str, Any]) -> dict[str, Any]:
    name = model.get("preset")
    if not isinstance(name, str):
        return {**model}
    own = {key: value for key, value in model.items() if key != "preset"}
    return _merged(preset_model(name), own)


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**base}
    for key, value in top.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged
