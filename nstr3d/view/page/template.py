"""HTML from Jinja templates."""

from __future__ import annotations

from typing import Any


def fill(template: str, **values: Any) -> str:
    """The Jinja ``template`` filled with ``values``. Values are escaped unless the template marks
    them as safe. Raises ``jinja2.UndefinedError`` for a name without a value."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(template).render(values)
