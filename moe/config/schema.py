"""The JSON Schema of experiment files, as editors should apply it."""

from typing import Any

from moe.config.experiment import Experiment


def experiment_schema() -> dict[str, Any]:
    """Return the schema of a file as written: a preset stands in for keys that are left out.

    Rules across keys, and what a preset lacks, are only checked when the file is loaded.
    """
    schema = Experiment.model_json_schema()
    parts = schema["$defs"]
    model = parts["ModelConfig"]
    model["anyOf"] = [{"required": ["preset"]}, {"required": model.pop("required")}]
    for name in ("MoeConfig", "MlaConfig"):
        del parts[name]["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
