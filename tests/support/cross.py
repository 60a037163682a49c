"""What the tests of wheels for other machines share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

Made = tuple[dict[str, Any], Path, list[dict[str, str]]]  # target, wheel, what was checked and proven of it


def missing(what: str) -> NoReturn:
    """Skip, or fail where everything has to be there."""
    if os.environ.get("EDGELLM_REQUIRE_CROSS", "0") not in ("", "0"):
        pytest.fail(what)
    pytest.skip(what)
