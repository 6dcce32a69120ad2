"""What the folder of a data set holds, from its catalogue."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from nstr3d.batch.catalogue import CATALOGUE, select

MEASURES = ("parameters", "bytes", "distance_error_near", "normal_error_field", "chamfer")


def is_dataset(path: Path) -> bool:
    """Whether ``path`` is the folder or the catalogue of a data set."""
    return (path / CATALOGUE).is_file() or (path.name == CATALOGUE and path.is_file())


def describe_dataset(path: Path) -> dict[str, Any]:
    """The properties of the data set whose folder or catalogue is ``path``, as plain values by
    name: counts of shapes, medians of their measures, and a few errors.

    Raises OSError, with one sentence, if the catalogue cannot be read.
    """
    catalogue = path / CATALOGUE if path.is_dir() else path
    rows = select(catalogue, ("id", "status", "error", "seconds", *MEASURES))
    done = [row for row in rows if row["status"] == "done"]
    known = {name: [row[name] for row in done if row[name] is not None] for name in MEASURES}
    return {
        "path": os.fspath(path),
        "format": "data set",
        "bytes": catalogue.stat().st_size,
        "kind": "data set",
        "shapes": len(rows),
        "states": dict(Counter(row["status"] for row in rows)),
        "seconds": sum(row["seconds"] or 0.0 for row in rows),
        "medians": {name: median(values) if values else None for name, values in known.items()},
        "errors": [f"{row['id']}: {row['error']}" for row in rows if row["error"]][:5],
    }
