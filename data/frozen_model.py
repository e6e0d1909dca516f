"""The strict base of every model that is read from a file."""

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Frozen; refuses unknown keys, infinity and NaN; attribute docstrings reach the schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
