"""What the scripts of cross/ share: where things are kept, how failures are said, how programs are run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
T = TypeVar("T")
R = TypeVar("R")
_started = set[subprocess.Popen[str]]()  # what has to end when this does


class Stop(Exception):  # noqa: N818 - not always an error
    """What cannot go on, in one sentence that says what to do."""


class Needs(Stop):
    """A tool that no package registry has is not here; `compiled` says how far the target came without it."""

    compiled = ""


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say what begins, and after it how long it took."""
    begin = time.monotonic()
    say(f"{text} ...")
    yield
    say(f"{text}: {time.monotonic() - begin:.0f} s")


def cache() -> Path:
    """Folder for tools, sysroots and object files; as cmake/fetch_ggml.cmake chooses it."""
    home = os.environ.get("EDGELLM_CACHE") or (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgellm"
    )
    folder = Path(home) / "cross"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(f"{folder} cannot be made ({error.strerror}): name another folder in EDGELLM_CACHE") from None
    return folder


def need_space(folder: Path, megabytes: int) -> None:
    """Stop when *folder*'s disk has less."""
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < megabytes:
        raise Stop(f"{folder} has {free} MB free, this takes {megabytes}: make room, or name another disk's folder")


def targets() -> dict[str, dict[str, Any]]:
    """The table of targets.toml, by name."""
    with (HERE / "targets.toml").open("rb") as file:
        return {name: {"name": name, **target} for name, target in tomllib.load(file)["target"].items()}


def target_named(name: str) -> dict[str, Any]:
    """One target, or a sentence with all names."""
    table = targets()
    if name not in table:
        raise Stop(f"there is no target '{name}'; there are: {', '.join(table)}")
    return table[name]


def pins() -> dict[str, str]:
    """Packages and versions that a build installs."""
    with (HERE / "targets.toml").open("rb") as file:
        found: dict[str, str] = tomllib.load(file)["tools"]
        return found


def run(
    command: Sequence[str | Path], what: str, *, log: Path | None = None, quiet: bool = False,
    env: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """
    Run a program to its end.

    Args:
        command: Program and arguments.
        what: What it does, for the sentence when it fails.
        log: Keep its output there; on a terminal ninja's counts are shown meanwhile.
        quiet: Do not show counts.
        env: Its environment; this process's by default.

    Returns:
        What it printed.

    Raises:
        Stop: It failed; the sentence ends with its last line and the log's name.
    """
    lines: list[str] = []
    shown = sys.stderr.isatty() and not quiet
    with started(command, env=env, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if shown and line.startswith("["):
                sys.stderr.write(f"\r  {line.split(' ')[0]}\033[K")
    if shown:
        sys.stderr.write("\r\033[K")
    text = "".join(lines)
    if log:
        with contextlib.suppress(OSError):  # a full disk: what failed says so
            log.write_text(text)
    if process.returncode:
        if "No space left on device" in text or "Errno 28" in text or "ENOSPC" in text:
            raise Stop(f"{what} failed: a disk is full; make room, or name other folders in EDGELLM_CACHE and TMPDIR")
        if "Retrying (" in text or "Could not connect to" in text or "Temporary failure resolving" in text:
            raise Stop(f"{what} failed: the network, or the server that pip and apt are told to use, does not answer")
        first = [line for line in lines if "error: " in line]  # the compiler's; what calls it writes ERROR
        last = [line for line in lines if "error" in line.lower()] or [line for line in lines if line.strip()] or [""]
        where = f"; everything it said is in {log}" if log else ""
        raise Stop(f"{what} failed (exit code {process.returncode}): {[*first, last[-1]][0].strip()[:300]}{where}")
    return text


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, stderr: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """
    A program in a session of its own, with its standard output in a pipe; waited for, or ended when this is left early.

    What it starts is ended with it. It gets a folder for temporary files that goes with it: pip that is killed
    leaves its own behind.

    Raises:
        Stop: It cannot be started.
    """
    words = [str(word) for word in command]
    around = dict(os.environ if env is None else env)
    temporary = tempfile.TemporaryDirectory(prefix="edgellm-", dir=around.get("TMPDIR"), ignore_cleanup_errors=True)
    with temporary as folder:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace",
                env={**around, "TMPDIR": folder}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Stop(f"{words[0]} cannot be started ({error.strerror})") from None
        _started.add(process)
        try:
            yield process
            process.wait()
        finally:
            if process.poll() is None:
                end(process)
            _started.discard(process)
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


def end(process: subprocess.Popen[str]) -> None:
    """Ask it and its children to end, as Ctrl-C does: pip and ninja then clean up; after some seconds make them."""
    if os.name != "posix":
        process.kill()
        return
    for number, seconds in ((signal.SIGINT, 5), (signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with contextlib.suppress(ProcessLookupError):  # what it had started and forgot
        os.killpg(process.pid, signal.SIGKILL)


def captured(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """What a program said, within *timeout* seconds; a code of -1 when it took longer."""
    with started(command, env=env) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            end(process)
            return subprocess.CompletedProcess([], -1, "", f"no end after {timeout:.0f} s")
    return subprocess.CompletedProcess([], process.returncode, out, err)


def parallel(function: Callable[[T], R], jobs: Sequence[T], done: Callable[[T, R], None]) -> None:
    """A job a core, *done* in their order; what ends this early ends the programs that run and starts no other."""
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        results = [pool.submit(function, job) for job in jobs]
        try:
            for job, result in zip(jobs, results, strict=True):
                done(job, result.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(result.done() for result in results):  # a thread may be about to start a program
                for process in [*_started]:
                    end(process)
                time.sleep(0.02)
            raise


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Being asked to end is like Ctrl-C, here and only once: what then cleans up is left alone."""

    def leave(_signal: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to fill that appears as *folder* when all is well, and not at all otherwise."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """A file that appears whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
