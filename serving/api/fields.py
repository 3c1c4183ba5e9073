"""What bodies of requests are made of: their common rules, and types of fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError


def _unless_boolean(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """What pydantic reads, but no number from a boolean: it takes ``true`` as 1."""
    found = read(value)
    if isinstance(value, bool) and not isinstance(found, bool):
        raise PydanticCustomError("number_type", "Input should be a number, not a boolean")
    return found


class Body(BaseModel):
    """``str_min_length`` makes pydantic check every text, which refuses lone surrogates."""

    model_config = ConfigDict(extra="forbid", str_min_length=0)
    _numbers = field_validator("*", mode="wrap")(_unless_boolean)


TokenIds = Annotated[list[StrictInt], Field(min_length=1)]
Stops = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=16)]
Bias = Annotated[float, Field(ge=-100, le=100), WrapValidator(_unless_boolean)]
Weight = Annotated[float, Field(allow_inf_nan=False, ge=0), WrapValidator(_unless_boolean)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TokenId = Annotated[StrictInt, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
