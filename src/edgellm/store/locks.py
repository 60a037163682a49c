"""A lock on a file, between processes. It ends with its holder, so a kill never leaves one behind.

The file is removed by whoever holds the lock last; a process that was waiting on the removed file
notices that the name now means another file and starts over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

if os.name == "nt":
    import msvcrt

    def _try(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class FileLock:
    """An exclusive lock by a file's path; not reentrant, one holder in one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The locked file, to hand to a child process that shall hold the lock as well."""
        assert self._fd is not None, "the lock is not held"
        return self._fd

    def acquire(self, on_wait: Callable[[], None] | None = None, poll: float = 0.05) -> None:
        """Take the lock, waiting as long as it takes; *on_wait* is called before each wait.

        Raises:
            OSError: The file cannot be opened.
        """
        while not self.try_acquire():
            if on_wait is not None:
                on_wait()
            time.sleep(poll)

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        if _try(fd) and self._still_named(fd):
            self._fd = fd
            return True
        os.close(fd)
        return False

    def _still_named(self, fd: int) -> bool:
        """Whether the path still means the file that was locked."""
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        if os.name != "nt":  # there an open file cannot be removed; the empty file stays
            self.path.unlink(missing_ok=True)
        os.close(fd)

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
