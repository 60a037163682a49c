"""The exceptions and how names reach the user."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgellm
from edgellm import errors

ROOT = Path(__file__).resolve().parents[2]

BUILT_IN = {
    "InvalidArgument": ValueError,
    "TemplateError": ValueError,
    "ContextOverflow": ValueError,
    "OutOfMemory": MemoryError,
    "FileError": OSError,
    "FormatError": ValueError,
    "Unsupported": NotImplementedError,
    "NumericError": ArithmeticError,
    "ClosedError": ValueError,
    "ModelNotFound": LookupError,
    "CacheFull": Exception,
    "Cancelled": Exception,
}


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_each_error_is_ours_and_the_built_in_that_fits(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.EdgellmError)
    assert issubclass(kind, BUILT_IN[name])
    assert str(kind("one sentence")) == "one sentence"


def test_every_public_name_can_be_fetched() -> None:
    for name in edgellm.__all__:
        assert getattr(edgellm, name) is not None
        assert name in dir(edgellm)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = edgellm.Nothing  # type: ignore[attr-defined]


def test_all_errors_are_public() -> None:
    found = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert found <= set(edgellm.__all__)


def test_version_is_that_of_the_header() -> None:
    header = (ROOT / "include" / "edgellm.h").read_text("utf-8")
    match = re.search(r'#define EDGELLM_VERSION "([^"]+)"', header)
    assert match is not None
    assert edgellm.__version__ == match[1]


def test_importing_loads_nothing_heavy() -> None:
    """Neither for the package nor for a tokenizer or a model: only what is used is paid for."""
    code = (
        "import sys, edgellm; from edgellm import LLM, SamplingParams, Tokenizer;"
        "print(*sorted({'numpy', 'jinja2', 'click', 'logging', 'platformdirs', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_env())
    assert done.stdout.strip() == ""
    code = "import sys, edgellm; print(*[m for m in sys.modules if m.startswith(('edgellm.', 'cffi', '_cffi'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_env())
    assert done.stdout.strip() == ""


def _env() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
