"""Compiling what is in examples/."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STRICT = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT / 'include'}"]


def compiled(
    compiler: str,
    library: Path,
    folder: Path,
    source: str = "examples/c/chat.c",
    more: Sequence[str | Path] = (),
    name: str = "chat",
) -> Path:
    """*source*, as strict C99, linked with edgellm's *library*."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    command = [
        compiler,
        *STRICT,
        *more,
        ROOT / source,
        library,
        f"-Wl,-rpath,{library.parent}",
        "-o",
        folder / name,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / name
