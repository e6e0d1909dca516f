"""Train one step again from the dump that a guard left, to look into it."""

from pathlib import Path
from typing import Any

from moe.checkpoint.agreement import check_agreement
from moe.checkpoint.directory import checkpoint_to_resume, read_state
from moe.checkpoint.state_format import DUMP_KEYS
from moe.checkpoint.training_state import load_checkpoint
from moe.config.experiment import Experiment
from moe.errors import ConfigError
from moe.runs.directory import refuse_links
from moe.runs.files import DUMPS
from moe.runs.json_lines import finite
from moe.training.startup.build import build_trainer
from moe.training.step import train_step
from parallel.engine.start import Engine


def replay(experiment: Experiment, engine: Engine, run_dir: Path, step: int) -> dict[str, Any]:
    """Return what a rejected step gives now: `loss`, `grad_norm` and `fault`, beside the first.

    Raises:
        ConfigError: There is no dump of that step, or it is damaged.
    """
    if run_dir.is_dir():
        refuse_links(run_dir)
    dump = checkpoint_to_resume(run_dir / DUMPS, step)
    if dump is None:
        raise ConfigError(f"{run_dir / DUMPS}: no dump of step {step}")
    trainer = build_trainer(experiment, engine, load_init=False)
    try:
        check_agreement(dump, read_state(dump, needed=DUMP_KEYS), experiment.train)
        state = load_checkpoint(dump, trainer.chunks, trainer.optimizer, verified=True)
        trainer.load_state(state)
        result = train_step(trainer, step - 1)
    finally:
        trainer.close()
    return {
        "step": step,
        "samples": state["samples"],
        "loss": finite(result.loss),
        "grad_norm": finite(result.grad_norm),
        "fault": None if result.rejection is None else result.rejection.reason,
        "first": {key: state.get(key) for key in ("loss", "grad_norm", "fault")},
    }
