"""
``python -m bench.accuracy SPEC...``: how far rounding moves the logits, ours and llama.cpp's, on the same file.

The reference is that file with every tensor dequantized to F32 (by llama-quantize), computed by edgellm in floats;
llama.cpp's own logits of the F32 file have to agree with it. What is left is what a quantized product does to its
activations: NMSE, the squared distance of all logits after every token over the squared reference. The cache is F32 for
everyone and flash attention is off. llama.cpp rounds differently in a long step (weights repacked, rows in tiles), token
by token, and without repacking: all three are measured, and ours is judged by the best of them.

A SPEC is one of bench/models.py; ``smollm2:all``, ``gemma3:all`` and ``1b:all`` mean every weight type here. Tokens are
real text, the recorded conversations of tests/data/greedy. The F32 file is removed at once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine, models
from bench.compare import commit, record
from bench.folders import ROOT, cache, edgellm_folder
from bench.gguf_header import read_header
from bench.peer import Peer, Worker, peers

TYPES = [
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4",
    "F16", "BF16", "F32",
]  # fmt: skip
LIMIT = 1.1  # times llama.cpp's NMSE
SAME = 1e-9  # NMSE between two engines that both compute in floats
N_TOKENS = {"1b": 64}  # by base, else:
DEFAULT_TOKENS = 512
STEP = 512
WAYS = {"one step": ("-fa0", STEP), "token by token": ("-fa0", 1), "not repacked": ("-fa0 -nrp", STEP)}


@dataclass
class Row:
    """One file: NMSE against its F32 copy."""

    spec: str
    mix: str
    tokens: int
    floats: float  # llama.cpp's F32 logits against ours
    ours: float
    theirs: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Ours by the best of llama.cpp's ways; 0 when ours is exact."""
        best = min(self.theirs.values())
        return self.ours / best if best else float(self.ours > 0)

    @property
    def verdict(self) -> str:
        """What the table says: the floats have to agree, or there is no reference."""
        if self.floats > SAME:
            return "no reference"
        return "ok" if self.ratio <= LIMIT else "MISSED"


def nmse(actual: np.ndarray, expected: np.ndarray) -> float:
    """Squared differences over squared expectations, summed in double, some rows at a time."""
    above = below = 0.0
    for at in range(0, len(expected), 16):
        wanted = expected[at : at + 16].astype(np.float64)
        above += float(np.sum((actual[at : at + 16] - wanted) ** 2))
        below += float(np.sum(wanted**2))
    return above / below


def text_tokens(model: Path, n: int) -> list[int]:
    """The first *n* tokens of the recorded conversations, as this model splits them."""
    from edgellm import Tokenizer

    runs = json.loads((ROOT / "tests" / "data" / "greedy" / "smollm2.json").read_text(encoding="utf-8"))["runs"]
    text = "\n\n".join(run["text"] + run["generated_text"] for run in runs)
    tokens = [int(token) for token in Tokenizer(model).encode(text, parse_special=True)]
    if len(tokens) < n:
        raise SystemExit(f"the text has only {len(tokens)} tokens in {model}")
    return tokens[:n]


class Bench:
    """The two engines and a folder for what they write."""

    def __init__(self, threads: int, folder: Path) -> None:
        ours, theirs = peers(["edgellm", "llama.cpp"])
        self._ours = replace(ours, environment=lambda variant: {"EDGELLM_CPU_BACKEND": "edgellm"})
        self._theirs = theirs
        self._threads = threads
        self._folder = folder
        self.flags = ""

    def measure(self, spec: str, n_tokens: int) -> Row:
        """One file."""
        path = models.resolve(spec)
        header = read_header(path)
        tokens = text_tokens(path, n_tokens)
        plain = self._folder / "f32.gguf"
        need = 4 * sum(tensor.n_elements for tensor in header.tensors)
        if shutil.disk_usage(self._folder).free < need + (2 << 30):
            raise SystemExit(f"{self._folder} has no room for {spec} in F32: {need / 1e9:.1f} GB and 2 GB to spare")
        models.quantize(path, plain, "F32")
        try:
            mix = read_header(plain).type_mix()
            if mix != "F32 100 %":
                raise SystemExit(f"llama-quantize left {mix} in {spec} as F32")
            expected = self._logits(self._ours, "", plain, tokens, STEP)
            floats = nmse(self._logits(self._theirs, "-fa0", plain, tokens, STEP), expected)
        finally:
            plain.unlink()
        row = Row(spec, header.type_mix(), n_tokens, floats, nmse(self._logits(self._ours, "", path, tokens, STEP), expected))
        for way, (variant, chunk) in WAYS.items():
            row.theirs[way] = nmse(self._logits(self._theirs, variant, path, tokens, chunk), expected)
        return row

    def _logits(self, peer: Peer, variant: str, model: Path, tokens: Sequence[int], chunk: int) -> np.ndarray:
        out = self._folder / "logits"
        worker = Worker(peer, variant, model, self._threads)
        try:
            worker.ask(do="score", tokens=list(tokens), chunk=chunk, out=str(out))
        finally:
            worker.close()
        return np.fromfile(out, np.float32).reshape(len(tokens), -1)


def expand(spec: str) -> list[str]:
    """As in bench/models.py, but all types of a base."""
    base, _, kind = spec.partition(":")
    if kind == "all" and (base in models.BASES or base == "1b"):
        return [f"{base}:{name}" for name in TYPES]
    return models.expand(spec)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ["file", "tokens", "types inside", "F32 apart", "edgellm", *(f"llama.cpp, {way}" for way in WAYS), "ratio", ""]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        cells = [row.spec, str(row.tokens), row.mix, f"{row.floats:.1e}", f"{row.ours:.3e}"]
        cells += [f"{value:.3e}" for value in row.theirs.values()]
        lines.append(" | ".join([*cells, f"{row.ratio:.3f}", row.verdict]))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def parser() -> argparse.ArgumentParser:
    """The options."""
    arguments = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    arguments.add_argument("models", nargs="+", metavar="SPEC", help="files, as bench/models.py names them")
    arguments.add_argument("--threads", type=int, default=2, help="for both engines; changes no bit of ours")
    arguments.add_argument("--tokens", type=int, help=f"default: {DEFAULT_TOKENS}; 64 for the 1.2B")
    arguments.add_argument("--record", action="store_true", help="append the table to bench/RESULTS.md")
    return arguments


def main(words: list[str] | None = None) -> int:
    """Measure, print, record; 1 when a type misses the limit."""
    edgellm_folder()
    options: Any = parser().parse_args(words)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        bench = Bench(options.threads, Path(folder))
        for spec in [one for word in options.models for one in expand(word)]:
            n_tokens = options.tokens or N_TOKENS.get(spec.partition(":")[0], DEFAULT_TOKENS)
            rows.append(bench.measure(spec, n_tokens))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if options.record:
        today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        command = "python -m bench.accuracy " + shlex.join(words if words is not None else sys.argv[1:])
        head = f"## {today}, commit {commit()}\n\n{machine.cpu_name()}, {os.cpu_count()} cores; NMSE of the logits.\n"
        record(f"{head}\n`{command}`\n\n{text}")
    return int(any(row.verdict != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
