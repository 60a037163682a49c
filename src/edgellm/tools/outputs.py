"""Files that appear whole or not at all: written beside their target under another name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from edgellm.errors import FileError, InvalidArgument

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quotas


def size_text(n_bytes: int) -> str:
    """``344 kB``, ``98 MB``."""
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 10_000_000 else f"{n_bytes / 1e3:.0f} kB"


class Outputs:
    """
    The files a command makes. Leaving the block without an exception puts all of them in place, the first one last.

    Args:
        paths: Their names, all in one folder.
        n_bytes: How large all of them will be together.
        force: Replace files that exist.

    Raises:
        InvalidArgument: One exists already and *force* is not given.
        FileError: The folder is missing, or the disk has too little room, now or when it is written.
    """

    def __init__(self, paths: Sequence[Path], n_bytes: int, *, force: bool = False) -> None:
        self._paths = list(paths)
        self._temporary = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
        for path in self._paths:
            if path.is_dir():
                raise InvalidArgument(f"{path} is a folder: name the file to write")
            if path.exists() and not force:
                raise InvalidArgument(f"{path} exists: --force replaces it")
        folder = self._paths[0].absolute().parent
        if not folder.is_dir():
            raise FileError(f"the folder {folder} does not exist")
        free = shutil.disk_usage(folder).free
        if n_bytes > free:
            raise FileError(f"{folder} has {size_text(free)} free, {size_text(n_bytes)} are needed")

    def temporary(self, number: int = 0) -> Path:
        """Where file *number* is until it is complete."""
        return self._temporary[number]

    def open(self, number: int = 0) -> BinaryIO:
        """Begin file *number*, for writing; the caller closes it."""
        return self._temporary[number].open("wb")

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._put_in_place()
        finally:
            for path in self._temporary:
                with contextlib.suppress(OSError):
                    path.unlink()
        if isinstance(value, OSError) and value.errno in _NO_ROOM and value.filename is None:
            name = " and the others" if len(self._paths) > 1 else ""
            raise FileError(
                f"{self._paths[0]}{name} could not be written ({value.strerror}): make room or name another place; "
                "nothing of it is left"
            ) from value

    def _put_in_place(self) -> None:
        for path in self._temporary:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        placed: list[Path] = []
        try:
            for temporary, path in reversed(list(zip(self._temporary, self._paths, strict=True))):
                temporary.replace(path)
                placed.append(path)
        except BaseException:  # Ctrl-C too: some parts of a set are worth nothing
            for path in placed:
                path.unlink()
            raise
        if os.name != "nt":
            folder = os.open(self._paths[0].absolute().parent, os.O_RDONLY)
            with contextlib.suppress(OSError):  # some network folders cannot
                os.fsync(folder)
            os.close(folder)
