"""Types and ranges of the record of a run (`nstr3d.io.lock`), checked by pydantic."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Whole = Annotated[int, Field(ge=1)]


class Lock(BaseModel):
    """The record of a run in progress. Versions before it was shared lack the last entries."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    host: str
    pid: int = Field(ge=1, lt=1 << 31)
    born: str | None
    beat: int = Field(ge=0)
    shard: Annotated[tuple[Whole, Whole] | None, Field(strict=False)] = None
    space: str | None = None
    began: float | None = None
    ticket: str = ""
    holds: bool = True


def read_lock(data: bytes) -> dict[str, Any]:
    """The entries of the record in ``data``, without those that it lacks. Raises ValueError if it
    is no record."""
    try:
        lock = Lock.model_validate(json.loads(data))
    except ValidationError as error:
        fault = error.errors()[0]
        entry = fault["loc"][0] if fault["loc"] else "record"
        raise ValueError(f"the lock: '{entry}': {fault['msg']}") from None
    if lock.shard is not None and lock.shard[0] > lock.shard[1]:
        raise ValueError("the lock: 'shard' has to be i/n with i from 1 to n")
    return lock.model_dump(exclude_unset=True)
