"""What the scripts of cross/ share: where things are kept, how failures are said, how programs are run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


class Stop(Exception):  # noqa: N818 - not always an error
    """What cannot go on, in one sentence that says what to do."""


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
    command: Sequence[str | Path], what: str, *, log: Path | None = None, quiet: bool = False, **options: Any
) -> str:
    """
    Run a program to its end.

    Args:
        command: Program and arguments.
        what: What it does, for the sentence when it fails.
        log: Keep its output there; on a terminal ninja's counts are shown meanwhile.
        quiet: Do not show counts.
        **options: Of subprocess.Popen.

    Returns:
        What it printed.

    Raises:
        Stop: It failed; the sentence ends with its last line and the log's name.
    """
    words = [str(word) for word in command]
    lines: list[str] = []
    shown = sys.stderr.isatty() and not quiet
    try:
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", **options,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if shown and line.startswith("["):
                    sys.stderr.write(f"\r  {line.split(' ')[0]}\033[K")
    except OSError as error:
        raise Stop(f"{what} failed: {words[0]} cannot be started ({error.strerror})") from None
    if shown:
        sys.stderr.write("\r\033[K")
    text = "".join(lines)
    if log:
        log.write_text(text)
    if process.returncode:
        first = [line for line in lines if "error: " in line]  # the compiler's; what calls it writes ERROR
        last = [line for line in lines if "error" in line.lower()] or [line for line in lines if line.strip()] or [""]
        where = f"; everything it said is in {log}" if log else ""
        raise Stop(f"{what} failed (exit code {process.returncode}): {[*first, last[-1]][0].strip()[:300]}{where}")
    return text


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
