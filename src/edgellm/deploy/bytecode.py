"""
Bytecode beside a staged release's modules.

Whoever asks the device's service may write nothing there, so without it Python would compile its modules for every
answer: SmolLM2's first token and the end of the program came after 215 instead of 118 ms on a Zen 5.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

from edgellm.deploy import selftest
from edgellm.deploy.machine import Target

SECONDS = 300
LEFT_OUT = r"/site/(numpy|.*/tests?)/"  # what an answer does not load


def add(target: Target, python: tuple[int, int], part: Path, release: Path) -> None:
    """
    Compile the modules under *part*, by this Python when it is of the same version, else by the device's own.

    Without either, or when it fails, there is no bytecode, and everything works all the same.

    Args:
        target: The root file system or folder.
        python: The version of its Python.
        part: The folder of the release as it is now.
        release: The folder it will be: what tracebacks name.
    """
    command, inside = [sys.executable, "-I"], False
    if sys.implementation.name != "cpython" or sys.version_info[:2] != python:
        found = selftest.interpreter(target)
        if isinstance(found, str):
            return
        command, inside = [*found.command, "-I"], found.inside
    seen = f"/{part.relative_to(target.folder).as_posix()}" if inside else str(part)
    named = f"/{release.relative_to(target.folder).as_posix()}"
    # The hash and not the time: copying a folder to a device may change times.
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-x", re.escape(seen) + LEFT_OUT]
    options += ["-s", seen, "-p", named, f"{seen}/site"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [*command, "-m", "compileall", *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
