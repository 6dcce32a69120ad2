"""Errors about the content of files. They are subclasses of ``ValueError``, which the command line
prints."""

from __future__ import annotations


class ContentError(ValueError):
    """The content of a file that can be opened is not what the reader needs. The message is one
    sentence that begins with the path and names the remedy."""


class NoFacesError(ContentError):
    """A mesh file holds points but no faces, so it is a point cloud."""
