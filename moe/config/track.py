"""The `[track]` section: where a run is shown besides its own files."""

from typing import Literal

from pydantic import Field

from data.frozen_model import FrozenModel


class TrackConfig(FrozenModel):
    """The `[track]` section; TensorBoard events are always written to the run directory."""

    use: list[Literal["wandb", "mlflow"]] = []
    """Loggers beside it, each with an extra of its name, offline: nothing leaves the machine.
    `wandb` writes RUN/wandb (send it with `wandb sync`), `mlflow` RUN/mlflow.db (`mlflow ui
    --backend-store-uri sqlite:///RUN/mlflow.db`)."""
    project: str = Field(default="moescale", min_length=1)
    """Project (wandb) or experiment (mlflow) under which the run is filed."""
