"""What all mappings of the config file have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

KIB, MIB, GIB = 2**10, 2**20, 2**30
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0


class Strict(BaseModel):
    """A frozen mapping that refuses unknown keys; a key without a value counts as left out."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=False
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        """Leave out keys without a value, as when all lines below `limits:` are commented out."""
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}
