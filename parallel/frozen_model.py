"""The strict base of this room's configuration."""

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Frozen; refuses unknown keys; attribute docstrings reach the JSON Schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
