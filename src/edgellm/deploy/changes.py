"""Files and links changed one by one, all of which can be taken back until `keep`."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path


class Changes:
    """A context: leaving it without `keep`, by an error or Ctrl-C, undoes what was done in it, last first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._undo:
            with contextlib.suppress(OSError):
                self._undo.pop()()

    def keep(self) -> None:
        """It is good: nothing is taken back any more."""
        self._undo.clear()

    def made(self, path: Path) -> None:
        """*path*, file or folder, is new and goes again on failure."""
        self._undo.append(lambda: shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink())

    def folder(self, path: Path) -> None:
        """Make a folder and its parents, readable by all."""
        if path.is_dir():
            return
        self.folder(path.parent)
        path.mkdir()
        path.chmod(0o755)
        self._undo.append(path.rmdir)

    def write(self, path: Path, text: str, mode: int = 0o644) -> None:
        """Put *text* at *path*: the old file or the new one, never a half."""
        self.folder(path.parent)
        old = path.read_bytes() if path.is_file() else None
        if old == text.encode():
            return
        _replace(path, text.encode(), mode)
        self._undo.append(path.unlink if old is None else lambda: _replace(path, old, mode))

    def link(self, path: Path, to: str) -> None:
        """Make *path* a link to *to*, in one step."""
        self.folder(path.parent)
        old = str(path.readlink()) if path.is_symlink() else None
        if old == to:
            return
        _link(path, to)
        self._undo.append(path.unlink if old is None else lambda: _link(path, old))


def _replace(path: Path, data: bytes, mode: int) -> None:
    part = path.with_name(f".{path.name}.edgellm-part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _link(path: Path, to: str) -> None:
    part = path.with_name(f".{path.name}.edgellm-part")
    part.unlink(missing_ok=True)
    part.symlink_to(to)
    part.replace(path)
