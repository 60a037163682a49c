"""
Wheels for other machines, each built and proven once for all tests of a session.

The scripts of cross/ are programs beside the package: their folder goes onto the path here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cross import Made, missing

sys.path.insert(0, str(Path(__file__).parents[2] / "cross"))

import build
from common import Stop


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """``made("rpi-armv7")``: the target, its wheel and the results of all checks and proofs."""
    known: dict[str, Made | str] = {}

    def make(name: str) -> Made:
        if sys.platform != "linux" or os.uname().machine != "x86_64":
            missing("wheels for other machines are built on x86-64 Linux")
        if name not in known:
            try:
                known[name] = build.make(name, tmp_path_factory.mktemp(name), proving=True, quick=True)
            except Stop as error:
                known[name] = str(error)
        found = known[name]
        if isinstance(found, str):
            missing(found)
        return found

    return make
