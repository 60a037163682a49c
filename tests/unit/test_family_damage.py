"""
Damaged models of every family: each computes or is refused by one sentence, and the process lives on.

The kinds of damage are in tests/support/family_cases.py. Here a sample of them runs, in a child process for each
of every third family; `python -m tests.support.family_damage` runs more of all, and with --all every one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import family_cases, family_damage

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="opens each file in a forked child")


@pytest.mark.parametrize("arch", family_cases.families()[::3])
def test_damaged_models(arch: str, tmp_path: Path) -> None:
    outcomes = family_damage.run(arch, family_cases.sample(arch, 5), tmp_path)
    assert len(outcomes) == 6
    assert [(outcome.case, family_damage.fault(outcome)) for outcome in outcomes if family_damage.fault(outcome)] == []
