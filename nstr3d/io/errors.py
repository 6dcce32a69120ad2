"""What a file can be refused for. The classes are ``ValueError``: the command line prints them."""

from __future__ import annotations


class ContentError(ValueError):
    """A file that can be opened does not hold what its reader needs. The message is one sentence
    that begins with the path and names the remedy."""


class NoFacesError(ContentError):
    """A mesh file holds points but no faces: it is a point cloud."""
