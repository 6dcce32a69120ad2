"""Pictures: sphere tracing, OpenGL, points, lines, panels, animations and contours.

The package is callable, because `nstr3d.render` is also a public function: a call is one of
`nstr3d.render.traced.render`, which draws a signed distance.
"""

import sys
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module(f"{__name__}.traced").render(*args, **options)

    @property
    def __signature__(self) -> Signature:
        return signature(import_module(f"{__name__}.traced").render)


sys.modules[__name__].__class__ = _Package
