"""Places of a signal and the search tree over them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor


class Sites:
    """``places (m, d)`` and the search tree over them, built when first asked."""

    def __init__(self, places: Tensor):
        self.places = places

    @classmethod
    def of(cls, places: Tensor | Sites) -> Sites:
        """The sites at ``places (m, d)``: new ones, or ``places`` itself where it is some."""
        return places if isinstance(places, Sites) else cls(places)

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def tree(self) -> Any:
        """What scipy searches."""
        from scipy.spatial import KDTree

        return KDTree(self.places.numpy())
