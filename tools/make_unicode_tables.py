"""
Write csrc/tokenizer/unicode_tables.c, the character class of every code point beyond ASCII, and unicode_fold.c.

The second holds small letters, letters without their accents, and which code points are controls.

The pre-tokenizers need to know letters, marks, numbers, punctuation, symbols and white space. The classes come from
the general category of Unicode 15.1.0, the version that the vocabularies in use were measured against; white space is
the property White_Space. Two-stage table: blocks of 128 code points, equal blocks stored once, four bits a class.

Run with a Python whose unicodedata is 15.1.0 (3.13), or after ``pip install unicodedata2==15.1.0``::

    python tools/make_unicode_tables.py csrc/tokenizer
"""

from __future__ import annotations

import importlib
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

VERSION = "15.1.0"
BLOCK = 128
N_CODE_POINTS = 0x110000

# The numbers of el_char_class in csrc/tokenizer/char_class.h.
OTHER, LETTER, MARK, NUMBER, PUNCTUATION, SYMBOL, SPACE = range(7)
_BY_CATEGORY = {"L": LETTER, "M": MARK, "N": NUMBER, "P": PUNCTUATION, "S": SYMBOL}

# Property White_Space beyond ASCII, from PropList.txt; str.isspace() differs (it follows bidirectional classes).
WHITE_SPACE = frozenset([0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])

_HEADER = """\
/* unicode_tables.c - character classes of Unicode {version} as a two-stage table.
 * Made by tools/make_unicode_tables.py: change that, not this. */
#include "char_class.h"

"""


def char_class(code_point: int, data: ModuleType) -> int:
    """Give the class of a code point beyond ASCII; unassigned ones are OTHER."""
    if code_point in WHITE_SPACE:
        return SPACE
    return _BY_CATEGORY.get(data.category(chr(code_point))[0], OTHER)


def build(data: ModuleType) -> tuple[list[int], list[tuple[int, ...]]]:
    """
    Make the two stages.

    Args:
        data: A module with the interface of unicodedata.

    Returns:
        For each block of 128 code points the number of its contents, and the contents.
    """
    index: list[int] = []
    blocks: dict[tuple[int, ...], int] = {}
    for first in range(0, N_CODE_POINTS, BLOCK):
        block = tuple(OTHER if c < 128 else char_class(c, data) for c in range(first, first + BLOCK))
        index.append(blocks.setdefault(block, len(blocks)))
    return index, list(blocks)


_FOLD_HEADER = """\
/* unicode_fold.c - small letters, letters without accents and controls of Unicode {version}, beyond ASCII.
 * Made by tools/make_unicode_tables.py: change that, not this. */
#include "unicode_fold.h"

"""


def _rows(values: list[int]) -> str:
    return _items([str(value) for value in values])


def _items(items: list[str]) -> str:
    lines, line = [], "   "
    for text in items:
        item = f" {text},"
        if len(line) + len(item) > 118:
            lines.append(line)
            line = "   "
        line += item
    return "\n".join([*lines, line])


def render(index: list[int], blocks: list[tuple[int, ...]], version: str) -> str:
    """Write the C file as text."""
    packed = [b[i] | b[i + 1] << 4 for b in blocks for i in range(0, BLOCK, 2)]
    width = 8 if len(blocks) <= 256 else 16
    return (
        _HEADER.format(version=version)
        + f"/* clang-format off */\nconst uint{width}_t el_unicode_index[{len(index)}] = {{\n{_rows(index)}\n}};\n\n"
        + f"const uint8_t el_unicode_classes[{len(packed)}] = {{\n{_rows(packed)}\n}};\n"
        + f'\nconst char el_unicode_version[] = "{version}";\n'
    )


Run = tuple[int, int, int, int]


def runs(changes: dict[int, int]) -> list[Run]:
    """Join what maps alike to (first, last, step, delta of the first): equal targets have step 0 in the last place."""
    found: list[Run] = []
    for cp, target in sorted(changes.items()):
        if found:
            first, last, step, to = found[-1]
            gap = cp - last
            if first == last and gap in (1, 2) and target - to == gap:
                found[-1] = (first, cp, gap, to)
                continue
            if first != last and gap == step and target - to == cp - first:
                found[-1] = (first, cp, step, to)
                continue
            if (first == last or step == 0) and gap == 1 and target == to:
                found[-1] = (first, cp, 0, to)
                continue
        found.append((cp, cp, 1, target))
    return found


def folds(data: ModuleType) -> tuple[dict[int, int], dict[int, int], list[tuple[int, int]]]:
    """
    Find what cleaning a text needs, beyond ASCII.

    Args:
        data: A module with the interface of unicodedata.

    Returns:
        The small letter of each code point that has one (the first code point of it); the first code point of each
        canonical decomposition (NFD) that changes it; the ranges of controls (general category C, but unassigned).
    """
    points = [cp for cp in range(128, N_CODE_POINTS) if not 0xD800 <= cp < 0xE000]
    lower = {cp: ord(chr(cp).lower()[0]) for cp in points if ord(chr(cp).lower()[0]) != cp}
    base = {cp: ord(data.normalize("NFD", chr(cp))[0]) for cp in points}
    controls: list[tuple[int, int]] = []
    for cp in range(128, N_CODE_POINTS):
        if data.category(chr(cp)) in ("Cc", "Cf", "Co", "Cs"):
            if controls and controls[-1][1] == cp - 1:
                controls[-1] = (controls[-1][0], cp)
            else:
                controls.append((cp, cp))
    return lower, {cp: to for cp, to in base.items() if to != cp}, controls


def render_folds(lower: dict[int, int], base: dict[int, int], controls: list[tuple[int, int]], version: str) -> str:
    """Write the second C file as text."""

    def table(name: str, found: list[Run]) -> str:
        rows = _items([f"{{{a}, {b}, {step}, {to}}}" for a, b, step, to in found])
        n = len(found)
        return f"const el_fold el_unicode_{name}[{n}] = {{\n{rows}\n}};\nconst size_t el_unicode_n_{name} = {n};\n"

    ranges = [(a, b, 1, a) for a, b in controls]
    return (
        _FOLD_HEADER.format(version=version)
        + "/* clang-format off */\n"
        + "\n".join([table("lower", runs(lower)), table("base", runs(base)), table("controls", ranges)])
    )


def main() -> None:
    """Write the files into the folder named on the command line."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: make_unicode_tables.py FOLDER")
    data: ModuleType = unicodedata
    if unicodedata.unidata_version != VERSION:
        try:
            data = importlib.import_module("unicodedata2")
        except ImportError:
            sys.exit(f"needs Unicode {VERSION}: run it with Python 3.13, or pip install unicodedata2=={VERSION}")
    if data.unidata_version != VERSION:
        sys.exit(f"found Unicode {data.unidata_version}, needs {VERSION}: pip install unicodedata2=={VERSION}")
    index, blocks = build(data)
    folder = Path(sys.argv[1])
    (folder / "unicode_tables.c").write_text(render(index, blocks, VERSION), encoding="ascii")
    (folder / "unicode_fold.c").write_text(render_folds(*folds(data), VERSION), encoding="ascii")
    print(f"{len(blocks)} blocks, {len(index) * (1 if len(blocks) <= 256 else 2) + len(blocks) * BLOCK // 2} bytes")


if __name__ == "__main__":
    main()
