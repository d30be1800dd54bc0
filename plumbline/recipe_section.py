"""What every section of a recipe stands on."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the recipe: unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)
