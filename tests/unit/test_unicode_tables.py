"""The committed character classes against the interpreter's own Unicode data."""

from __future__ import annotations

import importlib.util
import re
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "csrc" / "tokenizer" / "unicode_tables.c"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location("make_unicode_tables", ROOT / "tools" / "make_unicode_tables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def committed() -> list[int]:
    """The class of each code point as the C file has it."""
    arrays = re.findall(r"\w+\[(\d+)\] = \{([^}]*)\}", TABLES.read_text("ascii"))
    index, packed = ([int(v) for v in body.replace("\n", " ").split(",") if v.strip()] for _, body in arrays)
    assert [len(index), len(packed)] == [int(n) for n, _ in arrays]
    classes = [half for byte in packed for half in (byte & 15, byte >> 4)]
    return [c for block in index for c in classes[block * 128 : block * 128 + 128]]


def test_every_code_point(tool: ModuleType, committed: list[int]) -> None:
    """Code points that both this Python and the tables know have the same class; with equal versions all have."""
    same_version = unicodedata.unidata_version == tool.VERSION
    assert len(committed) == sys.maxunicode + 1
    wrong = []
    n_known = 0
    for cp in range(128, sys.maxunicode + 1):
        assigned = unicodedata.category(chr(cp)) != "Cn"
        n_known += assigned
        if committed[cp] != tool.char_class(cp, unicodedata) and (
            same_version or (assigned and (committed[cp] != tool.OTHER))
        ):
            wrong.append((hex(cp), committed[cp], unicodedata.category(chr(cp))))
    assert wrong == []
    assert n_known > 270_000


def test_folds(tool: ModuleType) -> None:
    """Small letters and first code points of decompositions are this Python's, where it knows the code point."""
    text = (TABLES.parent / "unicode_fold.c").read_text("ascii")

    def mapped(name: str) -> dict[int, int]:
        body = re.search(rf"el_unicode_{name}\[\d+\] = \{{(.*?)\n\}};", text, re.DOTALL)
        assert body
        found = {}
        for item in re.findall(r"\{(\d+), (\d+), (\d+), (\d+)\}", body[1]):
            first, last, step, to = map(int, item)
            found |= {cp: to + (cp - first if step else 0) for cp in range(first, last + 1, step or 1)}
        return found

    lower, base, controls = tool.folds(unicodedata)
    same = unicodedata.unidata_version == tool.VERSION
    for name, expected in [("lower", lower), ("base", base)]:
        committed = mapped(name)
        assert all(committed.get(cp) == to for cp, to in expected.items())
        assert len(committed) == len(expected) or not same
    ranges = re.findall(r"\{(\d+), (\d+), 1, \d+\}", text[text.index("el_unicode_controls") :])
    assert not same or [(int(a), int(b)) for a, b in ranges] == controls


def test_file_is_what_the_script_writes(tool: ModuleType, committed: list[int]) -> None:
    """Rendering the committed classes gives the committed file, so nobody edited it by hand."""

    class Data:  # answers with the committed classes in place of categories
        @staticmethod
        def category(char: str) -> str:
            return "_LMNPS_"[committed[ord(char)]]

    assert tool.render(*tool.build(Data), tool.VERSION) == TABLES.read_text("ascii")
