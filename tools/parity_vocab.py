"""
The table of vocabularies: does each give the recorded ids, with and without special tokens, and the recorded text back?

    PYTHONPATH=src python tools/parity_vocab.py

Vocabularies come from three places: those made by tests/support/vocabularies.py (recorded in tests/data/vocab_small),
the fixtures (``../shared/data/vocab`` or the folder EDGELLM_SHARED), and real models in the store that have a recording
among the fixtures. What is not on this machine is left out.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.support
SMALL = ROOT / "tests" / "data" / "vocab_small"

# Recordings whose vocabulary is that of a model in the store.
MODELS = {"smollm2-135m-instruct-q4_1": "smollm2", "gemma3-270m-q4_k_m": "gemma3:270m"}

# llama.cpp reads plain pieces as the byte alphabet when it turns them into text; ids are right.
NO_TEXT = ("whitespace",)


HEAD = ["vocabulary", "kind", "pre-tokenizer", "strings", "equal", "verdict"]


@dataclass(frozen=True, slots=True)
class Row:
    """
    One vocabulary.

    Attributes:
        name: Of the recording.
        kind: tokenizer.ggml.model.
        pre: tokenizer.ggml.pre, or "".
        strings: How many texts were compared.
        equal: How many gave all that was recorded.
        verdict: "pass" or "FAIL".
    """

    name: str
    kind: str
    pre: str
    strings: int
    equal: int

    @property
    def verdict(self) -> str:
        """Whether all are equal."""
        return "pass" if self.strings and self.equal == self.strings else "FAIL"

    def cells(self) -> list[str]:
        """The row as text, in the order of `HEAD`."""
        return [self.name, self.kind, self.pre, str(self.strings), str(self.equal), self.verdict]


def fixtures() -> Path:
    """The folder of the large recordings; it may not exist."""
    return Path(os.environ.get("EDGELLM_SHARED", ROOT.parent / "shared")) / "data" / "vocab"


@contextmanager
def vocabularies() -> Iterator[Iterator[tuple[str, Path, Path]]]:
    """Name, GGUF file and recording of each vocabulary at hand; the files made for it go at the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield _find(Path(folder))


def _find(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    from tests.support.gguf_writer import write_gguf
    from tests.support.vocabularies import KINDS

    for kind, make in KINDS.items():
        yield f"small {kind}", write_gguf(folder / f"{kind}.gguf", make()), SMALL / f"{kind}.json.gz"
    for recording in sorted(fixtures().glob("*.json.gz")):
        name = recording.name.removesuffix(".json.gz")
        packed = recording.with_name(f"{name}.gguf.xz")
        path = folder / f"{name}.gguf"
        if packed.exists():
            path.write_bytes(lzma.decompress(packed.read_bytes()))
            yield name, path, recording
            path.unlink()
        elif (model := _model(name)) is not None:
            yield name, model, recording


def _model(name: str) -> Path | None:
    from edgellm import store
    from edgellm.errors import EdgellmError

    try:
        return Path(store.resolve(MODELS[name])) if name in MODELS else None
    except EdgellmError:
        return None


def is_equal(tokenizer: Any, case: dict[str, Any], text_too: bool = True) -> bool:
    """Whether one text gives the recorded ids and bytes."""
    text = case["text"]
    return bool(
        tokenizer.encode(text) == case["ids"]
        and tokenizer.encode(text, add_special=True, parse_special=True) == case["ids_with_special"]
        and (not text_too or tokenizer.decode(case["ids"]).hex() == case["detokenized_hex"])
    )


def compare(name: str, path: Path, recording: Path) -> Row:
    """Compare one vocabulary with its recording."""
    from edgellm import Tokenizer, inspect

    metadata = inspect(path)["metadata"]
    kind, pre = (str(metadata.get(f"tokenizer.ggml.{key}", "")) for key in ("model", "pre"))
    with gzip.open(recording) as file:
        cases = json.load(file)
    with Tokenizer(path) as tokenizer:
        equal = sum(is_equal(tokenizer, case, kind not in NO_TEXT) for case in cases)
    return Row(name, kind, pre, len(cases), equal)


def table() -> list[Row]:
    """A row for each vocabulary on this machine."""
    with vocabularies() as found:
        return [compare(*one) for one in found]


def rows() -> list[list[str]]:
    """The table as text, its head first."""
    return [HEAD, *(row.cells() for row in table())]


def main() -> int:
    """Print the table; the exit code is 1 when a vocabulary fails."""
    cells = rows()
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return int(any(row[-1] != "pass" for row in cells[1:]))


if __name__ == "__main__":
    sys.exit(main())
