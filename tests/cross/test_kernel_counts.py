"""Products' instructions: what is over budget is named, and ours stand beside ggml's as instructions per product."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icount import kernels

ONE = {"Q4_0": {"1": 1000, "8": 5000, "64": 30000}}


@pytest.fixture
def budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand instructions for one row of Q4_0 on one processor."""
    file = tmp_path / "budgets.json"
    file.write_text(json.dumps({"cortex-a7": ONE}))
    monkeypatch.setattr(kernels, "BUDGETS", file)


@pytest.mark.usefixtures("budgets")
def test_excess_names_the_product() -> None:
    assert kernels.excess("cortex-a7", ONE) == ""
    assert kernels.excess("cortex-a7", {"Q4_0": {**ONE["Q4_0"], "1": 1010}}) == ""
    found = kernels.excess("cortex-a7", {"Q4_0": {**ONE["Q4_0"], "1": 1011}})
    assert found == "Q4_0 with 1 rows takes 1011, stored 1000"
    assert kernels.excess("cortex-a53", ONE) == ""


@pytest.mark.parametrize(("repacked", "cells"), [(1, "1.000 | 0.25"), (2.01, " | ")])
def test_table_is_per_product(repacked: float, cells: str) -> None:
    """Repacked weights have columns where they change what ggml takes."""
    products = kernels.N_ROWS * kernels.K
    ours, on_file, other = ({"Q4_0": {str(n): int(products * n * f) for n in kernels.N_X}} for f in (0.25, 2, repacked))
    text = kernels.table({"cortex-a7": (ours, on_file, other)})
    assert f"| Q4_0 | 0.250 | 2.000 | 0.12 | {cells} | 0.250 | 2.000 | 0.12 | {cells} |" in text


def test_budgets_cover_every_processor_and_type() -> None:
    known = json.loads(kernels.BUDGETS.read_text())
    assert list(known) == list(kernels.CPUS)
    types = {name for counts in known.values() for name in counts}
    assert len(types) == 16
    assert all(set(counts) == types for counts in known.values())
    assert all(set(rows) == {str(n) for n in kernels.N_X} for counts in known.values() for rows in counts.values())
