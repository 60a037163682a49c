"""
``python -m bench.perplexity [TYPE...]``: every weight type in SmolLM2, its perplexity here and in llama.cpp.

SmolLM2 as it is pulled becomes F16, and from there each TYPE: all matrices whose rows are whole blocks of it, in the
others what `edgellm quantize` puts there instead (SmolLM2 is 576 wide, so types with blocks of 256 stand in the second
half of the feed-forward blocks, whose rows are 1536). The types of one to three bits get an importance matrix. Both
programs read the same files and the same text: the documentation of Python's statements, which comes with Python, in
chunks of 512 tokens. llama.cpp's figure is llama-perplexity's. ``--write`` puts each row into the table of
docs/weight-types.md as it is measured, in place of the one there.

Quantized products round their activations, and the two programs add up in another order, so what is rounded the other
way differs by chance: over 2040 tokens the two perplexities of one Q8_0 file differ by up to 0.3 % in either direction,
those of float files by 0.01 %. Four times the tokens halve that.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import models, native
from bench.folders import ROOT, cache, edgellm_folder
from bench.gguf_header import read_header

DOCUMENT = ROOT / "docs" / "weight-types.md"
TYPES = [
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4",
    "NVFP4", "Q3_K", "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0",
]  # fmt: skip
LIMIT = 0.002  # relative distance of the two perplexities
CALIBRATION = 20  # chunks for the importance matrix
MARKS = ("<!-- table: python -m bench.perplexity --write -->\n", "<!-- end -->")


@dataclass(frozen=True)
class Row:
    """One file."""

    type: str
    mix: str
    megabytes: float
    ours: float
    theirs: float
    n_tokens: int

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        """Within the limit or not."""
        return "ok" if abs(self.ratio - 1) <= LIMIT else "MISSED"


def text(folder: Path) -> Path:
    """Python's own documentation, topic after topic."""
    from pydoc_data.topics import topics

    path = folder / "text.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics)), "utf-8")
    return path


class Bench:
    """The base file, its importance matrix, and both programs."""

    def __init__(self, folder: Path, n_chunks: int, threads: int) -> None:
        from edgellm.evaluation.chunks import Reader, read_text
        from edgellm.evaluation.importance import importance

        self._folder, self._n_chunks, self._threads = folder, n_chunks, threads
        self._base = models.resolve("smollm2:F16")
        self._text = text(folder)
        self._words = read_text(self._text)
        with Reader(self._base, 512, threads) as reader:
            chunks = reader.chunks(self._words)[n_chunks : n_chunks + CALIBRATION]  # not those that are scored
            self._imatrix = importance(reader, chunks, "python topics")

    def measure(self, kind: str) -> Row:
        """One type."""
        path = self._folder / f"{kind}.gguf"
        try:
            self._quantize(kind, path)
            header = read_header(path)
            mix, size = header.type_mix(), path.stat().st_size / 1e6
            return Row(kind, mix, size, self._ours(path), self._theirs(path), 255 * self._n_chunks)
        finally:
            path.unlink(missing_ok=True)

    def _quantize(self, kind: str, path: Path) -> None:
        from edgellm.tools.quantization import plan, quantize, write
        from edgellm.tools.quantization.source import Source

        floats = kind in ("F32", "F16", "BF16")
        where = r"blk\.1[45]\.ffn_down" if kind.startswith("TQ") else "."
        wishes = quantize.Wishes(tensor_types=[] if floats else [(where, kind)])
        with Source(self._base) as source:
            made = plan(source, kind if floats else "Q8_0", wishes, None if floats else self._imatrix)
            write(source, made, path, imatrix=None if floats else self._imatrix, threads=self._threads)

    def _ours(self, path: Path) -> float:
        from edgellm.evaluation.chunks import Reader
        from edgellm.evaluation.perplexity import perplexity

        with Reader(path, 512, self._threads) as reader:
            return perplexity(reader, reader.chunks(self._words, self._n_chunks)).value

    def _theirs(self, path: Path) -> float:
        tool = native.llama().tool("llama-perplexity")
        command = [str(tool), "-m", str(path), "-f", str(self._text), "-c", "512", "-b", "512"]
        command += ["-t", str(self._threads), "--chunks", str(self._n_chunks)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        found = re.search(r"Final estimate: PPL = ([\d.]+)", done.stdout + done.stderr)
        if done.returncode or not found:
            raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-1000:]}")
        return float(found[1])


HEAD = ["type", "types inside, by bytes", "MB", "tokens scored", "edgellm", "llama.cpp", "ratio", "within 0.2 %"]


def line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |\n"


def line_of(row: Row) -> str:
    """A row of the table."""
    cells = [row.type, row.mix, f"{row.megabytes:.0f}", str(row.n_tokens), f"{row.ours:.4f}", f"{row.theirs:.4f}"]
    return line([*cells, f"{row.ratio:.5f}", row.verdict])


def write(row: Row) -> None:
    """Put a row into the document, in the order of TYPES."""
    before, _, rest = DOCUMENT.read_text("utf-8").partition(MARKS[0])
    inside, _, after = rest.partition(MARKS[1])
    lines = {old.split("|")[1].strip(): old + "\n" for old in inside.splitlines() if old.startswith("| ")}
    lines[row.type] = line_of(row)
    rows = "".join(lines[kind] for kind in TYPES if kind in lines)
    made = f"\n{line(HEAD)}{line(['---'] * len(HEAD))}{rows}\n"
    DOCUMENT.write_text(f"{before}{MARKS[0]}{made}{MARKS[1]}{after}", "utf-8")


def parser() -> argparse.ArgumentParser:
    """The options."""
    arguments = argparse.ArgumentParser(prog="python -m bench.perplexity", description=__doc__)
    arguments.add_argument("types", nargs="*", metavar="TYPE", default=TYPES, help="weight types; default: all")
    arguments.add_argument("--chunks", type=int, default=60, help="of 512 tokens, half of them scored (default 60)")
    arguments.add_argument("--threads", type=int, default=2, help="for both programs")
    arguments.add_argument("--write", action="store_true", help=f"put the rows into {DOCUMENT.relative_to(ROOT)}")
    return arguments


def main(words: list[str] | None = None) -> int:
    """Measure, print, write; 1 when a type misses the limit."""
    edgellm_folder()
    options: Any = parser().parse_args(words)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        bench = Bench(Path(folder), options.chunks, options.threads)
        for kind in options.types:
            rows.append(bench.measure(kind.upper()))
            print(line_of(rows[-1]), end="", file=sys.stderr, flush=True)
            if options.write:
                write(rows[-1])
    print(line(HEAD) + line(["---"] * len(HEAD)) + "".join(map(line_of, rows)))
    return int(any(row.verdict != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
