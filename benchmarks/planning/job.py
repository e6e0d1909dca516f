"""What `moe plan` is asked: a model, its batch and precision, and the cards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.errors import BenchmarkError
from data.plain_text import printable
from moe.config.energy import EnergyConfig
from moe.config.experiment import Experiment, load_experiment, load_model, validated
from moe.config.kernels import build_fault
from moe.config.model import ModelConfig
from moe.config.toml_file import read_toml
from moe.cost.model_shape import batch_of, shape_of
from parallel.hardware.card import Card, load_card
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.planner.energy import Estimate, Site
from parallel.planner.execution import Execution
from parallel.planner.validation.jobs import RECIPES
from parallel.precision.recipes import Precision

if TYPE_CHECKING:
    from benchmarks.planning.calibrate import Calibrated

MAX_GPUS = 2**20
MOST_IMBALANCE = 1_000_000
DEFAULT_SEQ_LEN = 4096
DEFAULT_GLOBAL_BATCH = 1024
"""Sequences a step where only a model is named: 4 million tokens of 4,096 each, as large runs."""
BF16 = {"dtype": "bf16"}
PRECISIONS = ("fp32", "bf16", "fp8", "fp8-delayed", "fp8-blockwise", "mxfp8")
"""Names of number formats that may be asked for; `fp8` scales by current values."""
Routing = Literal["forced", "natural", "capacity"]


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What a command line says beside the model; None leaves the experiment's, or a default."""

    gpus: int
    gpu: str
    overrides: Sequence[str] = ()
    seq_len: int | None = None
    global_batch_size: int | None = None
    micro_batch_size: int | None = None
    precision: str | None = None
    routing: Routing = "forced"
    imbalance: float = 1.0
    calibrate: Sequence[Path] = ()
    """Files of `moe bench`'s records, of the cards that are planned for."""
    assumptions: Mapping[str, Any] = field(default_factory=dict)
    """Keys of `[energy]`: grid, PUE, prices, currency; None leaves the experiment's."""


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """One model to train on some cards, layout open."""

    name: str
    path: Path | None
    """The experiment's file; None where only a model was named."""
    model: ModelConfig
    shape: ModelShape
    batch: BatchSize
    fixed_micro_batch: bool
    """Whether a search keeps `batch.micro_batch_size`."""
    packs_documents: bool
    """Whether attention stays inside documents (`data.document_mask`): with kernel set `te` that
    needs micro-batches of one sequence, and no context parallelism."""
    layout: Layout
    """The experiment's own; of a model alone, defaults that overlap what they can."""
    precision: Precision
    execution: Execution
    expert_imbalance: float
    energy: EnergyConfig
    """Prices and grid of the experiment, or defaults."""
    site: Site
    """Where the cards stand."""
    card: Card
    num_gpus: int
    calibrated: "Calibrated | None" = None
    """What the user's own records made of the card; None: it is as its file says."""


def read_job(target: str, options: JobOptions) -> PlanJob:
    """Read an experiment, a model's file, or a preset, and what the command line changes.

    Raises:
        InputError: No such model, file or card, or a value that breaks a rule.
    """
    experiment = _experiment(target, options)
    if experiment is not None:
        return experiment_job(experiment, options, Path(target))
    return model_job(target, load_model(target), options)


def experiment_job(
    experiment: Experiment, options: JobOptions, path: Path | None = None
) -> PlanJob:
    """Return the job of an experiment, and of its file if it has one.

    Raises:
        InputError: As `read_job`.
    """
    if experiment.train.mode == "dpo":
        name = experiment.name if path is None else path
        raise BenchmarkError(f'{name}: train.mode = "dpo" is not modelled: plan "sft"')
    return _job(experiment.name, experiment.model, experiment, options, path)


def model_job(name: str, model: ModelConfig, options: JobOptions) -> PlanJob:
    """Return the job of a model that no file describes.

    Raises:
        InputError: No such card, or a value that breaks a rule.
    """
    return _job(name, model, None, options)


def _card(options: JobOptions) -> tuple[Card, "Calibrated | None"]:
    """Return the card, which can be planned for in that number, and what records made of it."""
    if not 1 <= options.gpus <= MAX_GPUS:
        raise BenchmarkError(f"--gpus {options.gpus}: choose 1 to {MAX_GPUS:,}")
    card = load_card(options.gpu)
    calibrated = None
    if options.calibrate:
        # Fits of records load numpy and the schema of every benchmark.
        from benchmarks.planning.calibrate import calibrate

        calibrated = calibrate(card, options.calibrate)
    card = card if calibrated is None else calibrated.found.card
    if options.gpus > 1 and (card.links is None or card.links.collectives is None):
        raise BenchmarkError(
            f"--gpu {options.gpu}: {card.name}'s file has no [links.collectives], so no layout on"
            " several of them can be timed: plan for --gpus 1 or another card, or add the section"
        )
    return card, calibrated


def _job(
    name: str,
    model: ModelConfig,
    experiment: Experiment | None,
    options: JobOptions,
    path: Path | None = None,
) -> PlanJob:
    if not 1 <= options.imbalance <= MOST_IMBALANCE:  # false of NaN too
        raise BenchmarkError(
            f"--imbalance {options.imbalance:g}: no number from 1 to {MOST_IMBALANCE:,}: 1 is even"
        )
    card, calibrated = _card(options)
    precision = _precision(options.precision, card, model, experiment)
    energy = _energy(options.assumptions, experiment)
    return PlanJob(
        name=name,
        path=path,
        model=model,
        shape=shape_of(model),
        batch=_batch(options, model, experiment),
        fixed_micro_batch=options.micro_batch_size is not None,
        packs_documents=experiment is not None and experiment.data.document_mask,
        layout=_default_layout() if experiment is None else experiment.parallel,
        precision=precision,
        execution=Execution(routing=options.routing),
        expert_imbalance=options.imbalance,
        energy=energy,
        site=_site(energy),
        card=card,
        num_gpus=options.gpus,
        calibrated=calibrated,
    )


def _experiment(target: str, options: JobOptions) -> Experiment | None:
    is_file = target.endswith(".toml") or "/" in target
    if is_file and "train" in read_toml(Path(target)):
        return load_experiment(Path(target), options.overrides)
    if options.overrides:
        raise BenchmarkError(f"--set changes an experiment, and {target} has no [train]: remove it")
    return None


def _batch(options: JobOptions, model: ModelConfig, experiment: Experiment | None) -> BatchSize:
    if experiment is None:
        length = min(DEFAULT_SEQ_LEN, model.max_seq_len)
        batch = BatchSize(
            seq_len=length, micro_batch_size=1, global_batch_size=DEFAULT_GLOBAL_BATCH
        )
    else:
        batch = batch_of(experiment.train)
    given = {
        name: value
        for name in ("seq_len", "global_batch_size", "micro_batch_size")
        if (value := getattr(options, name)) is not None
    }
    batch = replace(batch, **given)
    if batch.seq_len > model.max_seq_len:
        raise BenchmarkError(
            f"--seq-len {batch.seq_len} is longer than the model's max_seq_len ="
            f" {model.max_seq_len}: shorten it"
        )
    return batch


def _energy(changes: Mapping[str, Any], experiment: Experiment | None) -> EnergyConfig:
    """Return the experiment's assumptions with those that are stated; a grid is stated one way."""
    given = {name: value for name, value in changes.items() if value is not None}
    own = {} if experiment is None else experiment.energy.model_dump(exclude_unset=True)
    if {"region", "carbon_intensity"} & set(given):
        own = {key: own[key] for key in own if key not in ("region", "carbon_intensity")}
    return validated(EnergyConfig, own | given, "assumptions", ("energy",))


def _site(energy: EnergyConfig) -> Site:
    """Return the site with the PUE that is stated, or the planner's default with its interval."""
    if "pue" not in energy.model_fields_set:
        return Site()
    return Site(pue=Estimate(value=energy.pue, low=energy.pue, high=energy.pue))


def _default_layout() -> Layout:
    return Layout(overlap_grad_reduce=True, overlap_param_gather=True)


def _precision(
    name: str | None, card: Card, model: ModelConfig, experiment: Experiment | None
) -> Precision:
    """Return the experiment's precision, or the card's usual one; a name decides the format."""
    if name is None and experiment is not None:
        precision = experiment.precision
    else:
        precision = named_precision(name, card)
        if fault := build_fault(model, precision):
            if precision.is_native_fp8:
                raise BenchmarkError(f"--precision {name}: {fault}")
            precision = precision.model_copy(update={"kernels": "torch"})
    if precision.fp8 == "emulated":
        raise BenchmarkError(
            'precision.fp8 = "emulated" studies losses and is slow by intent: give --precision'
        )
    if precision.is_native_fp8 and card.rates.fp8 is None:
        raise BenchmarkError(f"precision {precision.fp8}: {card.name} has no FP8: choose bf16")
    return precision


def named_precision(name: str | None, card: Card) -> Precision:
    """Return the number format of a name of `PRECISIONS`; of None: the card's usual one.

    Raises:
        BenchmarkError: There is none of that name.
    """
    if name is not None and name not in PRECISIONS:
        raise BenchmarkError(
            f"--precision {printable(name[:40])!r}: choose one of {', '.join(PRECISIONS)}"
        )
    on_cpu = card.architecture == "cpu"
    chosen = name or ("fp32" if on_cpu else "bf16")
    usual = {"dtype": "fp32"} if chosen == "fp32" else BF16 | {"fp8": RECIPES[chosen]}
    return _validated({"kernels": "torch" if on_cpu else "te"} | usual)


def precision_name(precision: Precision) -> str:
    """Return the name of a number format, one of `PRECISIONS`."""
    if precision.dtype == "fp32":
        return "fp32"
    return next(name for name in PRECISIONS if RECIPES.get(name) == precision.fp8)


def _validated(values: dict[str, Any]) -> Precision:
    return validated(Precision, values, "--precision")
