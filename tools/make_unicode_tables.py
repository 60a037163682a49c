"""
Write csrc/tokenizer/unicode_tables.c: the character class of every code point beyond ASCII.

The pre-tokenizers need to know letters, marks, numbers, punctuation, symbols and white space. The classes come from
the general category of Unicode 15.1.0, the version that the vocabularies in use were measured against; white space is
the property White_Space. Two-stage table: blocks of 128 code points, equal blocks stored once, four bits a class.

Run with a Python whose unicodedata is 15.1.0 (3.13), or after ``pip install unicodedata2==15.1.0``::

    python tools/make_unicode_tables.py csrc/tokenizer/unicode_tables.c
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


def _rows(values: list[int]) -> str:
    lines, line = [], "   "
    for value in values:
        item = f" {value},"
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


def main() -> None:
    """Write the file named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: make_unicode_tables.py OUTPUT.c")
    data: ModuleType = unicodedata
    if unicodedata.unidata_version != VERSION:
        try:
            data = importlib.import_module("unicodedata2")
        except ImportError:
            sys.exit(f"needs Unicode {VERSION}: run it with Python 3.13, or pip install unicodedata2=={VERSION}")
    if data.unidata_version != VERSION:
        sys.exit(f"found Unicode {data.unidata_version}, needs {VERSION}: pip install unicodedata2=={VERSION}")
    index, blocks = build(data)
    Path(sys.argv[1]).write_text(render(index, blocks, VERSION), encoding="ascii")
    print(f"{len(blocks)} blocks, {len(index) * (1 if len(blocks) <= 256 else 2) + len(blocks) * BLOCK // 2} bytes")


if __name__ == "__main__":
    main()
