"""The places of a signal with a search tree."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor


class Sites:
    """``places (m, d)`` and the search tree over them, which is built at its first use."""

    def __init__(self, places: Tensor):
        self.places = places

    @classmethod
    def of(cls, places: Tensor | Sites) -> Sites:
        """The sites at ``places (m, d)``; ``places`` itself if it is already a `Sites`."""
        return places if isinstance(places, Sites) else cls(places)

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def tree(self) -> Any:
        """The scipy search tree over the places."""
        from scipy.spatial import KDTree

        return KDTree(self.places.numpy())
