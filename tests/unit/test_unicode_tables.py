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


def test_file_is_what_the_script_writes(tool: ModuleType, committed: list[int]) -> None:
    """Rendering the committed classes gives the committed file, so nobody edited it by hand."""

    class Data:  # answers with the committed classes in place of categories
        @staticmethod
        def category(char: str) -> str:
            return "_LMNPS_"[committed[ord(char)]]

    assert tool.render(*tool.build(Data), tool.VERSION) == TABLES.read_text("ascii")
