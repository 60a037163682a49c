"""Where the sources with cross/ are: this checkout, or the source distribution of this version."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from edgellm import __version__
from edgellm.cli._text import say

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(__file__).parents[1]


def checkout() -> Path | None:
    """The folder of sources that this package runs from, if it does."""
    root = PACKAGE.parents[1]
    return root if (root / "cross" / "build.py").is_file() and (root / "CMakeLists.txt").is_file() else None


def targets() -> dict[str, dict[str, Any]]:
    """The table of cross/targets.toml, by name."""
    root = checkout()
    path = root / "cross" / "targets.toml" if root else PACKAGE / "cross" / "targets.toml"
    with path.open("rb") as file:
        known: dict[str, dict[str, Any]] = tomllib.load(file)["target"]
        return known


def sources() -> Path:
    """
    The folder with cross/build.py: the current one, this package's, or the source distribution, fetched once.

    Raises:
        SourcesMissing: It cannot be fetched.
    """
    here = Path.cwd()
    if (here / "cross" / "build.py").is_file() and (here / "include" / "edgellm.h").is_file():
        return here
    root = checkout()
    if root:
        return root
    from platformdirs import user_cache_path

    cache = os.environ.get("EDGELLM_CACHE") or user_cache_path("edgellm", appauthor=False)
    folder = Path(cache) / "sources"
    unpacked = folder / f"edgellm-{__version__}"
    if not (unpacked / "cross" / "build.py").is_file():
        _fetch(folder)
    if not (unpacked / "cross" / "build.py").is_file():
        raise SourcesMissing(
            f"edgellm {__version__}'s source distribution has no cross/build.py: run this in a checkout"
        )
    return unpacked


class SourcesMissing(Exception):  # noqa: N818 - read as a sentence
    """One sentence about sources that are not to be had."""


def _fetch(folder: Path) -> None:
    """Put the sources there, whole or not at all."""
    wanted = f"edgellm=={__version__}"
    hint = "run this in a checkout of edgellm instead"
    if os.environ.get("EDGELLM_OFFLINE", "0") not in ("", "0"):
        raise SourcesMissing(f"building takes {wanted}'s sources, and EDGELLM_OFFLINE forbids fetching them: {hint}")
    say(f"fetching the sources of {wanted}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
            said = _download(wanted, part)
            [*archives] = Path(part).glob("edgellm-*.tar.gz")
            if not archives:
                raise SourcesMissing(f"pip could not fetch the sources of {wanted} ({said}): {hint}")
            with tarfile.open(archives[0]) as file:
                file.extractall(part, filter="data")
            name = f"edgellm-{__version__}"
            shutil.rmtree(folder / name, ignore_errors=True)
            (Path(part) / name).replace(folder / name)
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourcesMissing(f"{folder} cannot be filled ({reason}): make room, or set EDGELLM_CACHE") from None


def _download(wanted: str, folder: str) -> str:
    """Let pip do it; what it said last when it could not."""
    # pip asks a source distribution who it is, by the package that builds it: installed, or from the index for once.
    isolated = importlib.util.find_spec("scikit_build_core") is None
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "edgellm", "--no-input",
         *([] if isolated else ["--no-build-isolation"]), "--retries", "1", "--disable-pip-version-check",
         "--dest", folder, wanted],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": folder},
    )  # fmt: skip
    if "No module named pip" in done.stderr:
        return f"this Python has none: {sys.executable} -m ensurepip"
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return (errors or done.stderr.strip().splitlines() or ["no answer"])[-1]
