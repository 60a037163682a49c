"""Where the ruler keeps what it builds: EDGELLM_CACHE/bench, or ~/.cache/edgellm/bench."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cache() -> Path:
    """The folder, made if it is not there."""
    given = os.environ.get("EDGELLM_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "edgellm"
    folder = base.expanduser() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def edgellm_folder() -> Path:
    """The folder that holds the package: the installed one, else this checkout's, which then can be imported."""
    spec = importlib.util.find_spec("edgellm")
    if spec is None or not spec.origin:
        sys.path.append(str(ROOT / "src"))
        return ROOT / "src"
    return Path(spec.origin).parent.parent
