"""The recorded logits of every family (tools/parity.py), one test per fixture."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.gguf_reader import write_f32_copy
from tools import parity

FOLDER = Path(os.environ.get("EDGELLM_SHARED", parity.ROOT.parent / "shared")) / "data" / "archs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
SUPPORTED = sorted(
    name
    for path in (parity.ROOT / "csrc" / "models" / "families").glob("*.c")
    for name in re.findall(r'^EL_ARCH\(\w+\) = \{\s*\.name = "([^"]+)"', path.read_text(encoding="utf-8"), re.M)
)


@pytest.mark.parametrize("name", NAMES or ["none"])
def test_fixture(name: str, shared: Path, tmp_path: Path) -> None:
    with np.load(FOLDER / f"{name}.npz") as stored:
        expected = dict(stored)
    model = FOLDER / f"{name}.gguf"
    row = parity.check(name, model, write_f32_copy(model, tmp_path / "f32.gguf"), expected)
    assert row.verdict == "pass", row


def test_every_family_has_passed() -> None:
    """docs/models.md names every supported family, and a recorded model of each that passes."""
    document = (parity.ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = document.partition("<!-- families -->")[2].partition("<!-- /families -->")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall("`(.*?)`", row)}
    passed = re.findall(r"^\| (\S+) +\|.*\| pass +\|$", document, re.MULTILINE)
    assert named == set(SUPPORTED)
    assert [name for name in SUPPORTED if not any(f"{one}-".startswith(f"{name}-") for one in passed)] == []


def test_without_fixtures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The project's own tiny models stand in, and the tables of a document are renewed."""
    document = tmp_path / "models.md"
    document.write_text("before\n<!-- parity -->\nold\n<!-- /parity -->\nafter\n")
    empty = tmp_path / "none"
    assert parity.main(["--dir", str(empty)]) == 1
    rows = list(parity.generated("llama", tmp_path))
    assert rows
    assert not any(row.failed for row in rows), rows
    parity.write_between(document, "parity", parity.markdown([row.cells() for row in rows], parity.HEAD))
    text = document.read_text()
    assert text.startswith("before\n<!-- parity -->\n| fixture")
    assert text.endswith("<!-- /parity -->\nafter\n")
    assert "old" not in text
    assert "no fixture" in capsys.readouterr().err


def test_a_wrong_fixture_fails(tmp_path: Path) -> None:
    """Values that are off by a thousandth of their size are told apart."""
    from tests.support.tiny import tiny_model, tiny_tokens

    model = tiny_model(tmp_path / "tiny.gguf", "llama")
    tokens = np.array(tiny_tokens(20))
    with parity.LLM(model, kv_type="f32", n_ctx=64, threads=1) as llm:
        logits = llm.logits(tokens.tolist())
    expected = {"tokens": tokens, "positions": np.arange(20), "logits": logits * np.float32(1.002)}
    row = parity.check("wrong", model, model, expected)
    assert row.failed
    assert row.verdict.startswith("FAIL: F32")
    assert row.f32 == pytest.approx(4e-6, rel=0.1)
