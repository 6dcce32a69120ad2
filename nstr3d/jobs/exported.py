"""What exported files hold: pages and networks, read without torch."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from nstr3d.jobs.about import place_in
from nstr3d.model.onnxheader import onnx_header
from nstr3d.types import Box

HEAD = 1 << 22  # bytes at the start of a page that hold all but the field's data
TITLE = re.compile("<title>(.*?)</title>", re.DOTALL)
MODEL = re.compile('<script type="application/json" id="model">(.*?)</script>', re.DOTALL)


def about_page(path: Path) -> dict[str, Any]:
    """The properties of the page that nstr3d exported to ``path``. Raises ValueError for another
    page."""
    with open(path, "rb") as file:
        text = file.read(HEAD).decode("utf-8", "replace")
    title, model = TITLE.search(text), MODEL.search(text)
    if title is None or model is None:
        raise ValueError(f"{path} is no page of nstr3d.")
    try:
        known = json.loads(model[1])
        lower, upper = (
            [centre + known["scale"] * side for centre, side in zip(known["centre"], known[name])]
            for name in ("lower", "upper")
        )
        level, parameters = known["level"], known.get("parameters")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no usable page of nstr3d: its model is damaged.") from error
    return {
        "kind": "page",
        "title": html.unescape(title[1]),
        "level": level,
        "parameters": parameters,
        **place_in(Box(tuple(lower), tuple(upper))),
    }


def about_network(path: Path) -> dict[str, Any]:
    """The properties of the ONNX network at ``path``. Raises the errors of `onnx_header`."""
    header = onnx_header(path)
    bounds = header.pop("bounds")
    place = place_in(Box(tuple(bounds["lower"]), tuple(bounds["upper"]))) if bounds else {}
    return {"kind": "network", **header, **place}
