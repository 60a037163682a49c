"""Reading the store: which models are here, and which file a name means.

One small JSON manifest per model, ``manifests/NAME.json``, written by rename, so there is no index to break.
A manifest points at ``blobs/sha256-...`` (pulled, verified) or at a file of the user's (registered in place).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from edgellm.store.faults import BadName, ModelNotFound, StoreError
from edgellm.store.folders import home_folder, inside
from edgellm.store.names import check_name, check_sha256, file_name, is_name, is_spec, shown

MANIFEST_BYTES = 1 << 16


class Entry(NamedTuple):  # not a dataclass: this one is made in a tenth of the time, before every answer
    """
    One model in the store.

    Attributes:
        name: Its name, like ``gemma3:270m``.
        aliases: Other names that mean it.
        path: The file.
        local: True for a file of the user's registered in place, which the store never changes or removes.
        n_bytes: The file's size when it came in.
        sha256: The file's digest, or None for a local one.
        title: What it is, in a few words.
        licence: Its licence, or ''.
        source: What was pulled: the catalog name, URL, Hub spec or path.
        added: When, in ISO 8601, UTC.
    """

    name: str
    path: Path
    n_bytes: int
    aliases: tuple[str, ...] = ()
    local: bool = False
    sha256: str | None = None
    title: str = ""
    licence: str = ""
    source: str = ""
    added: str = ""

    @property
    def present(self) -> bool:
        """Whether the file is there."""
        return self.path.is_file()

    def as_json(self) -> dict[str, Any]:
        """The entry as plain data, for ``--json``."""
        return {
            "name": self.name,
            "aliases": list(self.aliases),
            "path": str(self.path),
            "present": self.present,
            "local": self.local,
            "n_bytes": self.n_bytes,
            "sha256": self.sha256,
            "title": self.title,
            "licence": self.licence,
            "source": self.source,
            "added": self.added,
        }


Entries: TypeAlias = list[Entry]  # a name of its own, since `list` means a method inside the class


class Shelf:
    """The store, to read."""

    def __init__(self, home: Path | None = None) -> None:
        """
        Set it up.

        Args:
            home: The folder with ``models`` in it; None: EDGELLM_HOME, or the user's data folder. Nothing is made.
        """
        self.home = home if home is not None else home_folder()
        self.root = self.home / "models"
        self.manifests = self.root / "manifests"
        self.blobs = self.root / "blobs"

    def list(self) -> Entries:
        """
        All models, by name. Manifests that `unreadable` tells of and pulled models without their file are left out.

        Raises:
            StoreError: The folder of the manifests cannot be read.
        """
        entries = []
        for file in self._files():
            entry = self._read_or_none(file)
            if entry is not None and (entry.local or entry.present):
                entries.append(entry)
        return sorted(entries, key=lambda entry: entry.name)

    def unreadable(self) -> tuple[str, ...]:
        """What is wrong with each manifest that cannot be read, in a sentence that says what to do."""
        faults = map(self._fault, self._files())
        return tuple(fault for fault in faults if fault is not None)

    def _fault(self, file: str) -> str | None:
        try:
            self._read(file)
        except StoreError as error:
            if os.path.lexists(self.manifests / file):  # not removed by another process just now
                return str(error)
        return None

    def _files(self) -> tuple[str, ...]:
        """The names of all manifests."""
        try:
            return tuple(sorted(file for file in os.listdir(self.manifests) if file.endswith(".json")))  # noqa: PTH208
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._locked(error) from error

    def _locked(self, error: OSError) -> StoreError:
        return StoreError(
            f"the model folder {self.manifests} cannot be read ({error.strerror}): "
            "make it readable, or set EDGELLM_HOME to another folder"
        )

    def get(self, name: str) -> Entry:
        """
        The model called *name*, by its name, an alias, or the spec it was pulled by.

        Raises:
            ModelNotFound: There is none; the text names the nearest and how to pull it.
            StoreError: Its manifest is damaged, or the folder cannot be read.
        """
        entry = self.find(name)
        if entry is None:
            raise ModelNotFound(self._missing(name))
        return entry

    def find(self, name: str) -> Entry | None:
        """Like `get`, with None for a model that is not here."""
        if is_name(name) and self._has(file_name(name)):
            try:
                entry = self._read(file_name(name))
            except StoreError:
                if self._has(file_name(name)):
                    raise
                return None  # removed by another process just now
            if entry.local or entry.present:
                return entry
        wanted = name.lower()
        return next((e for e in self.list() if wanted in e.aliases or e.source == name), None)

    def blob(self, sha256: str) -> Path:
        """The path of a pulled file by its digest; it may not exist."""
        return inside(self.blobs, f"sha256-{check_sha256(sha256)}")

    def _has(self, file: str) -> bool:
        try:
            return (self.manifests / file).exists()
        except OSError as error:
            raise self._locked(error) from error

    def _read(self, file: str) -> Entry:
        """
        Read one manifest.

        Raises:
            StoreError: It is damaged, or cannot be read.
        """
        import json

        try:
            with inside(self.manifests, file).open("rb") as stream:
                data = json.loads(stream.read(MANIFEST_BYTES))
            return self._entry(data, file)
        except OSError as error:
            raise StoreError(
                f"the store's note on {shown(file)} cannot be read ({error.strerror}): "
                f"make {self.manifests / file} readable, or remove it and pull the model again"
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(
                f"the store's note on {shown(file)} is damaged ({type(error).__name__}): "
                f"remove {self.manifests / file} and pull the model again"
            ) from error

    def _entry(self, data: dict[str, Any], file: str) -> Entry:
        name = check_name(data["name"])
        if data["format"] != 1 or file_name(name) != file:
            raise BadName("another format or another model's note")
        local = bool(data["local"])
        return Entry(
            name=name,
            aliases=tuple(check_name(alias) for alias in data["aliases"]),
            path=Path(str(data["path"])) if local else self.blob(data["sha256"]),
            local=local,
            n_bytes=int(data["n_bytes"]),
            sha256=None if local else check_sha256(data["sha256"]),
            title=str(data["title"]),
            licence=str(data["licence"]),
            source=str(data["source"]),
            added=str(data["added"]),
        )

    def _read_or_none(self, file: str) -> Entry | None:
        try:
            return self._read(file)
        except StoreError:
            return None

    def _missing(self, name: str) -> str:
        """Why *name* cannot be used, and what to do."""
        from edgellm.store.catalog import load

        catalog = load()
        known = catalog.get(name.lower())
        if known is not None:
            return f"{shown(name)} is not on this machine: run 'edgellm pull {known.name}'"
        if is_spec(name):
            return f"{shown(name)} is not on this machine: run 'edgellm pull {name}'"
        import difflib

        here = [spelling for entry in self.list() for spelling in (entry.name, *entry.aliases)]
        near = difflib.get_close_matches(name.lower(), [*here, *catalog], n=1, cutoff=0.5)
        if near:
            best = near[0]
            how = "" if best in here else f" (edgellm pull {catalog[best].name})"
            return f"there is no model called {shown(name)}; the nearest is '{best}'{how}"
        names = sorted({entry.name for entry in self.list()} | {item.name for item in catalog.values()})
        return f"there is no model called {shown(name)}: known are {', '.join(names[:12])}, or give a .gguf file"


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """
    The file that *name_or_path* means. Never touches the network.

    Args:
        name_or_path: A path to a file, or the name of a model in the store. A file of that name wins.

    Raises:
        ModelNotFound: Neither; the text says what is nearest and what to do.
        StoreError: The model's manifest is damaged.
    """
    text = os.fspath(name_or_path)
    path = Path(text)
    if "\0" in text or not text:
        raise ModelNotFound(f"{shown(text)} names no model")
    try:
        if path.exists() and not path.is_dir():
            return path
        folder = path.is_dir()
    except OSError as error:  # no permission on a parent, or a name longer than the system takes
        raise ModelNotFound(f"{shown(text)} cannot be opened: {error.strerror}") from error
    if isinstance(name_or_path, str) and not looks_like_path(text):
        entry = Shelf().find(text)
        if entry is not None:
            if not entry.present:
                raise ModelNotFound(f"{shown(text)} is registered at {entry.path}, where no file is any more")
            return entry.path
        if not folder:
            raise ModelNotFound(Shelf()._missing(text))
    raise ModelNotFound(no_file(path, folder))


def looks_like_path(text: str) -> bool:
    """Whether *text* is meant as a path rather than as a name: it has a separator or ends in ``.gguf``."""
    if is_spec(text):
        return False
    return os.sep in text or "/" in text or text.startswith((".", "~")) or text.lower().endswith(".gguf")


def no_file(path: Path, folder: bool = False) -> str:
    """What to say about a path without a file; names the models lying there."""
    where = path if folder else path.parent
    try:
        nearby = sorted(item.name for item in where.iterdir() if item.suffix.lower() == ".gguf")
    except OSError:
        nearby = []
    there = f"; in {where} there is {', '.join(nearby[:5])}" if nearby else ""
    if folder:
        return f"{shown(str(path))} is a folder: name a .gguf file{there}"
    if not where.is_dir() and len(path.parts) == 2 and path.suffix.lower() != ".gguf" and not path.is_absolute():
        return f"there is no file {shown(str(path))}; if that is a model on the Hub, write hf:{path}"
    if not where.is_dir():
        return f"{shown(str(path))} does not exist: nor does its folder {where}"
    return f"{shown(str(path))} does not exist{there}"
