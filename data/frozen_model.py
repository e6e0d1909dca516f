"""The strict base of every model that is read from a file."""

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Frozen; refuses unknown keys; attribute docstrings reach the JSON Schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
