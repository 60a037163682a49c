"""
Every kind of damaged file gets one clear sentence: no crash, no hang, no memory, whatever the bytes say.

The kinds and their expected answers are in tests/support/damaged.py, which also opens them: each in a child process of
its own, through the library's C function, so that a death is one failed test and not the end of the suite.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import damaged

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="opens each file in a forked child")

SECONDS = 2.0
EXTRA_KB = 100 * 1024
EFORMAT, EIO, EUNSUPPORTED, EINVAL = -4, -3, -5, -1


def library_path() -> Path:
    """The library under test; skips when it has not been built."""
    named = os.environ.get("EDGELLM_LIBRARY")
    if named:
        return Path(named)
    native = pytest.importorskip("edgellm._native", reason="edgellm is not installed")
    path = Path(native.library_path())
    if not path.is_file():
        pytest.skip(f"{path} has not been built")
    return path


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, damaged.Outcome]:
    """What opening each case did, by its name."""
    folder = tmp_path_factory.mktemp("damaged") / "cases"
    command = [sys.executable, damaged.__file__, str(library_path()), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found = [damaged.Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
    return {outcome.name: outcome for outcome in found}


def test_there_are_many_kinds() -> None:
    names = [case.name for case in damaged.CASES]
    assert len(names) == len(set(names))
    assert sum(case.verdict == "refuse" for case in damaged.CASES) >= 80


@pytest.mark.parametrize("case", damaged.CASES, ids=lambda case: case.name)
def test_damaged(case: damaged.Case, outcomes: dict[str, damaged.Outcome]) -> None:
    outcome = outcomes[case.name]
    assert outcome.died == ""
    assert outcome.seconds < SECONDS
    assert outcome.extra_kb < EXTRA_KB
    if case.verdict == "accept":
        assert outcome.status == 0, outcome.text
    if case.verdict == "refuse":
        assert outcome.status in (EFORMAT, EIO, EUNSUPPORTED, EINVAL)
        assert re.search(case.pattern, outcome.text), outcome.text
    if outcome.status != 0:
        assert 20 < len(outcome.text) <= 1000
        assert outcome.text.isprintable()


def test_json_of_a_sound_file(outcomes: dict[str, damaged.Outcome]) -> None:
    header = json.loads(outcomes["sound"].text)
    assert header["version"] == 3
    assert header["alignment"] == 32
    assert header["metadata"]["tokenizer.ggml.tokens"] == ["<s>", "a", "b", "é"]
    assert header["metadata"]["tokenizer.ggml.add_bos_token"] is True
    assert header["tensors"][1] == {
        "name": "blk.0.attn_q.weight",
        "shape": [32, 2],
        "type": "Q8_0",
        "offset": damaged.header_size() + 128,
        "n_bytes": 68,
    }


def test_json_of_odd_values(outcomes: dict[str, damaged.Outcome]) -> None:
    assert json.loads(outcomes["floats_not_finite"].text)["metadata"]["k"] == ["inf", "-inf", "nan"]
    assert json.loads(outcomes["string_not_utf8"].text)["metadata"]["k"] == "\ufffd\ufffd\0\x1b[31m"


def test_parts_of_a_split_file_become_one(outcomes: dict[str, damaged.Outcome]) -> None:
    tensors = json.loads(outcomes["split_sound"].text)["tensors"]
    assert [(t["name"], t["part"]) for t in tensors] == [("t0", 0), ("t1", 1), ("t2", 2)]
