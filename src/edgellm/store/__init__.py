"""The models on this machine: names, files, and where new ones come from.

`resolve` and `Store` are what other modules use. Reading (`shelf`) is kept apart from changing (`store`) and from the
network (`url`, `wheel`, `hub`), so that running a model loads none of the latter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgellm.store.shelf import Entry, resolve
    from edgellm.store.source import Progress
    from edgellm.store.store import Plan, Store

_HOMES = {
    "Entry": "shelf",
    "resolve": "shelf",
    "Plan": "store",
    "Progress": "source",
    "Store": "store",
}
__all__ = ["Entry", "Plan", "Progress", "Store", "resolve"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
