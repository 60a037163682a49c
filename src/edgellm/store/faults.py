"""What can go wrong in the model store. Every text is one sentence with the value, the limit and the way out."""

# ruff: noqa: N818 - named after what is wrong, as the library's own errors are
from __future__ import annotations

from edgellm.errors import EdgellmError, ModelNotFound

__all__ = [
    "BadName",
    "DownloadFailed",
    "ModelNotFound",
    "NoSpace",
    "Offline",
    "StoreError",
    "WrongDigest",
]


class StoreError(EdgellmError):
    """The model store could not do what was asked; the models it already has are untouched."""


class BadName(StoreError, ValueError):
    """A model name, spec or manifest that the grammar does not allow."""


class Offline(StoreError):
    """EDGELLM_OFFLINE forbids what would need the network."""


class NoSpace(StoreError):
    """The disk of the store has no room for the file."""


class DownloadFailed(StoreError):
    """The source did not give the bytes it promised. What has arrived is kept where that is of use."""


class WrongDigest(DownloadFailed):
    """The whole file arrived, but it is not the one that was asked for; it is thrown away."""
