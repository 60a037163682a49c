"""A download under way: the bytes so far and a journal that says what they are worth.

The folder ``partial/KEY`` holds ``data`` and ``journal.json``. The journal names the source and the
offset up to which `data` is on the disk for certain; bytes past it are not trusted and are cut off when
the download goes on. So a kill or a power cut costs at most what came since the last checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from edgellm.store.folders import inside, make_folder, write_atomically

CHECKPOINT_BYTES = 8 << 20  # an SD card syncs this in under a second


class Partial:
    """The unfinished file of one download. Use it under the download's lock only."""

    def __init__(self, parent: Path, key: str, identity: str) -> None:
        """
        Open or begin the download *key* below the folder *parent*.

        Args:
            parent: The store's folder for downloads under way.
            key: A short name in hexadecimal digits.
            identity: Says which bytes these are; a journal of other bytes is thrown away.
        """
        self.folder = inside(parent, key)
        make_folder(self.folder)
        self.data = inside(self.folder, "data")
        self._journal = inside(self.folder, "journal.json")
        self.notes: dict[str, Any] = self._load(identity)
        self.offset = int(self.notes["offset"])
        self._file = self.data.open("r+b" if self.data.exists() else "w+b")  # close() closes it
        self._synced = self.offset
        self._cut(self.offset)

    def _load(self, identity: str) -> dict[str, Any]:
        fresh: dict[str, Any] = {"format": 1, "identity": identity, "offset": 0}
        try:
            notes = json.loads(self._journal.read_bytes()[: 1 << 16])
            size = self.data.stat().st_size
        except (OSError, ValueError):
            return fresh
        known = isinstance(notes, dict) and notes.get("format") == 1 and notes.get("identity") == identity
        offset = notes.get("offset") if known else None
        if not isinstance(offset, int) or not 0 <= offset <= size:
            return fresh
        return dict(notes)

    def _cut(self, offset: int) -> None:
        self._file.truncate(offset)
        self._file.seek(offset)
        self.offset = offset
        self._synced = min(self._synced, offset)

    def write(self, data: bytes) -> None:
        """Append *data*. Now and then this is also a checkpoint."""
        self._file.write(data)
        self.offset += len(data)
        if self.offset - self._synced >= CHECKPOINT_BYTES:
            self.checkpoint()

    def checkpoint(self, **notes: object) -> None:
        """Put all bytes on the disk, then record that they are there, with *notes* added to the journal."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.notes.update(notes, offset=self.offset)
        write_atomically(self._journal, json.dumps(self.notes).encode())
        self._synced = self.offset

    def flush(self) -> None:
        """Let others who open `data` see every byte written."""
        self._file.flush()

    def restart(self, offset: int = 0) -> None:
        """Forget the bytes from *offset* on, and record it."""
        self._cut(offset)
        self.checkpoint()

    def close(self) -> None:
        """Stop for now; the download can go on later from the last byte, if the disk still takes it."""
        if self._file.closed:
            return
        try:
            if self._synced != self.offset:
                self.checkpoint()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # a full disk keeps the last checkpoint, which is enough
        finally:
            self._close_file()
        if self.offset == 0:
            self.remove()

    def _close_file(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()  # flushes, which fails again on a full disk

    def remove(self) -> None:
        """Throw everything away."""
        self._close_file()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
