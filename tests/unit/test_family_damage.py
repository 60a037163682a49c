"""
Damaged models of every family: each computes or is refused by one sentence, and the process lives on.

The kinds of damage are in tests/support/family_cases.py. Here a sample of them runs over every third family, in a
process of its own, which forks one for each case; `python -m tests.support.family_damage` runs more of all, and with
--all every one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="opens each file in a forked child")
def test_damaged_models() -> None:
    command = [sys.executable, "-m", "tests.support.family_damage", "-n", "5", "--part", "1/3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.rstrip().endswith(" 0 faults")
