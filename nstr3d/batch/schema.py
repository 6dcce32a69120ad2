"""Types and ranges of the JSON and the rows that a data set holds, checked by pydantic.

A report may be edited by hand or written by another program. What is wrong in one costs the row of
its shape, not the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from nstr3d.batch.catalogue import BATCH, COLUMNS, METRICS, REAL, WHOLE
from nstr3d.model.schema import first_fault

LOOSE = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
Whole = Annotated[int, Field(ge=0, lt=1 << 63)] | None
Flag = bool | Whole
Real = float | None
Text = Annotated[str, Field(max_length=1 << 20)] | None
Status = Literal["done", "failed", "timeout", "killed", "crashed"]


def _column(name: str) -> tuple[Any, None]:
    return (Real if name in REAL else Flag if name in WHOLE else Text), None


def _part(title: str, /, *columns: str, **more: Any) -> Any:
    """The schema of a part of a report with these ``columns`` of the catalogue and ``more``."""
    fields: dict[str, Any] = {column: _column(column) for column in columns} | more
    return create_model(title, __config__=LOOSE, **fields)


Batch = _part("Batch", *BATCH, status=(Status, ...))
Accuracy = _part("Accuracy", *METRICS)
Input = _part("Input", faces=(Whole, None), points=(Whole, None), warnings=(list[str] | None, None))
FieldPart = _part("FieldPart", "parameters", "bytes", "steps", name=(Text, None))
Seconds = _part("Seconds", fit=(Real, None))
Mesh = _part("Mesh", "faces", "watertight")
Points = _part("Points", mean=(Real, None), gap=(Real, None))
Colour = _part("Colour", psnr=(Real, None))
Versions = _part("Versions", nstr3d=(Text, None))
Machine = _part("Machine", versions=(Versions | None, None))


class Report(BaseModel):
    """The parts of a report that its row shows."""

    model_config = LOOSE
    batch: Batch  # type: ignore[valid-type]
    input: Input | None = None  # type: ignore[valid-type]
    field: FieldPart | None = None  # type: ignore[valid-type]
    seconds: Seconds | None = None  # type: ignore[valid-type]
    mesh: Mesh | None = None  # type: ignore[valid-type]
    accuracy: Accuracy | None = None  # type: ignore[valid-type]
    points: Points | None = None  # type: ignore[valid-type]
    colour: Colour | None = None  # type: ignore[valid-type]
    machine: Machine | None = None  # type: ignore[valid-type]


Row = _part("Row", *COLUMNS, id=(str, ...))


def check_report(report: Any) -> None:
    """Raises ValueError naming the first entry of a report that its row cannot show."""
    try:
        Report.model_validate(report)
    except ValidationError as error:
        raise ValueError(first_fault(error, "its report.json")) from None


def check_row(row: Mapping[str, Any]) -> None:
    """Raises ValueError naming the first value of a row of the catalogue that has another type."""
    try:
        Row.model_validate(dict(row))
    except ValidationError as error:
        raise ValueError(first_fault(error, "its row of the catalogue")) from None
