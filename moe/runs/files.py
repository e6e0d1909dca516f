"""The files of a run directory, beside `experiment.toml` (moe/config/locating.py)."""

from moe.config.locating import EXPERIMENT_FILE, HUB_DIRECTORY

RECORD = "record.json"
"""What ran, on what, and what came of it (moe/runs/record.py)."""
METRICS = "metrics.jsonl"
"""A row every `train.log_interval` steps."""
EVALUATIONS = "evaluations.jsonl"
"""A row for each measurement of the held-out loss."""
EXPERT_LOAD = "expert_load.jsonl"
"""Tokens of each expert of each layer, a row for each metrics row."""
ROUTING = "routing.jsonl"
"""Measures of routing by layer, a row for each metrics row."""
ROUTING_MAPS = "routing_maps.json"
"""Which experts the sources of held-out text use, and which are used together; the latest."""
REJECTED = "refused.jsonl"
"""A row for each step whose update was not made."""
DUMPS = "dumps"
"""Folder of checkpoints from before such steps, to replay them."""
CHECKPOINTS = "checkpoints"
"""Folder of checkpoints (moe/checkpoint/directory.py)."""
EVENTS = "events"
"""Folder of TensorBoard's files."""
LOCK = ".lock"
"""Locked by the process that trains."""

ROWS = (METRICS, EVALUATIONS, EXPERT_LOAD, ROUTING, REJECTED)
"""Files of rows by step."""
WRITTEN = (
    *ROWS, EXPERIMENT_FILE, RECORD, ROUTING_MAPS, DUMPS, CHECKPOINTS, EVENTS, LOCK, HUB_DIRECTORY,
    "energy.json", "phases.csv", "wandb", "mlflow.db",
)  # fmt: skip
"""All that a run writes; the last row by what watches it (benchmarks)."""
