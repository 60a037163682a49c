"""
``python -m bench.accuracy SPEC...``: how far rounding moves the logits, ours and llama.cpp's, on the same file.

The reference is that file with every tensor dequantized to F32 (by llama-quantize), computed by edgellm in floats;
llama.cpp's own logits of the F32 file have to agree with it. What is left is what a quantized product does to its
activations: NMSE, the squared distance of all logits after every token over the squared reference. The cache is F32 for
everyone and flash attention is off. llama.cpp rounds differently in a long step (weights repacked, rows in tiles) and
token by token; by default it does both, so ours is judged by their mean.

One text is one throw of dice: much of the error is a shift that all its logits share (SmolLM2 in Q8_0, one text of 512
tokens: llama.cpp's 8.9e-4 and 9.8e-4 for the same products in another order of addition, ours 1.17e-3; over 20 texts
8.5e-4, 8.5e-4 and 8.8e-4). So many short texts are used, and the spread is
printed: the geometric mean of the ratios by text with its standard error. "Centred" leaves out what a softmax does not
see, a shift of all logits.

A SPEC is one of bench/models.py; ``smollm2:all``, ``gemma3:all`` and ``1b:all`` mean every weight type here. Texts are
the recorded ones of tests/data/greedy, some 40 of 32 tokens; where their spread hides the answer, ``--text FILE...
--texts 320`` takes more from other files. The F32 file is removed at once.
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
from dataclasses import dataclass, replace
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
TEXTS = {"1b": (4, 16)}  # texts and tokens of each, by base; else:
DEFAULT_TEXTS = (40, 32)
WAYS = {"one step": 512, "token by token": 1}  # tokens in one step


@dataclass(frozen=True)
class Errors:
    """Squared distances and squared references of each text: [n, 2], as they are and centred."""

    raw: np.ndarray
    centred: np.ndarray

    @property
    def nmse(self) -> float:
        """Over all texts."""
        return float(self.raw[:, 0].sum() / self.raw[:, 1].sum())


@dataclass(frozen=True)
class Row:
    """One file: errors against its F32 copy."""

    spec: str
    mix: str
    floats: float  # NMSE between llama.cpp's F32 logits and ours
    ours: Errors
    theirs: dict[str, Errors]

    @property
    def ratio(self) -> float:
        """Our NMSE by the mean of llama.cpp's; 0 when ours is exact."""
        return quotient(self.ours.nmse, float(np.mean([errors.nmse for errors in self.theirs.values()])))

    @property
    def centred(self) -> float:
        """The same without each token's shift of all logits."""
        return quotient(self.ours.centred[:, 0].sum(), np.mean([e.centred[:, 0].sum() for e in self.theirs.values()]))

    @property
    def by_text(self) -> str:
        """Geometric mean of the ratios by text, and its standard error."""
        ours, theirs = self.ours.raw[:, 0], np.mean([errors.raw[:, 0] for errors in self.theirs.values()], axis=0)
        if not ours.all() or not theirs.all():
            return "-"
        ratios = np.log(ours / theirs)
        return f"{np.exp(ratios.mean()):.3f} ± {ratios.std(ddof=1) / np.sqrt(len(ratios)):.3f}"

    @property
    def verdict(self) -> str:
        """What the table says: the floats have to agree, or there is no reference."""
        if self.floats > SAME:
            return "no reference"
        return "ok" if self.ratio <= LIMIT else "MISSED"


def quotient(ours: float, theirs: float) -> float:
    """Ours by theirs; two exact ones are equal."""
    return float(ours / theirs) if theirs else 1.0 if not ours else float("inf")


def errors_of(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Errors:
    """Text by text."""

    def pair(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
        return float(np.sum((one - two) ** 2)), float(np.sum(two**2))

    raw, centred = [], []
    for a, e in zip(actual, expected, strict=True):
        one, two = a.astype(np.float64), e.astype(np.float64)
        raw.append(pair(one, two))
        centred.append(pair(one - one.mean(1, keepdims=True), two - two.mean(1, keepdims=True)))
    return Errors(np.array(raw), np.array(centred))


def recorded() -> list[str]:
    """Prompts and answers of tests/data/greedy."""
    runs = json.loads((ROOT / "tests" / "data" / "greedy" / "smollm2.json").read_text(encoding="utf-8"))["runs"]
    return [run["prompt"] + "\n" + run["generated_text"] for run in runs]


def cut(model: Path, sources: Sequence[str], n_texts: int, n_tokens: int) -> list[list[int]]:
    """Pieces of the texts, as this model splits them, from all over; each begins with other tokens."""
    from edgellm import Tokenizer

    with Tokenizer(model) as tokenizer:
        texts = [tokenizer.encode(text) for text in sources]
    pieces = [text[at : at + n_tokens] for text in texts for at in range(0, len(text) - n_tokens + 1, n_tokens)]
    return pieces[:: max(1, len(pieces) // n_texts)][:n_texts]


class Bench:
    """The two engines and a folder for what they write."""

    def __init__(self, threads: int, folder: Path, sources: Sequence[str]) -> None:
        self._sources = sources
        ours, theirs = peers(["edgellm", "llama.cpp"])
        self._ours = replace(ours, environment=lambda variant: {"EDGELLM_CPU_BACKEND": "edgellm"})
        self._theirs = theirs
        self._threads = threads
        self._folder = folder

    def measure(self, spec: str, n_texts: int, n_tokens: int) -> Row:
        """One file."""
        path = models.resolve(spec)
        header = read_header(path)
        texts = cut(path, self._sources, n_texts, n_tokens)
        plain = self._folder / "f32.gguf"
        need = 4 * sum(tensor.n_elements for tensor in header.tensors)
        if shutil.disk_usage(self._folder).free < need + (2 << 30):
            raise SystemExit(f"{self._folder} has no room for {spec} in F32: {need / 1e9:.1f} GB and 2 GB to spare")
        models.quantize(path, plain, "F32")
        try:
            mix = read_header(plain).type_mix()
            if mix != "F32 100 %":
                raise SystemExit(f"llama-quantize left {mix} in {spec} as F32")
            expected = self._logits(self._ours, plain, texts)
            floats = errors_of(self._logits(self._theirs, plain, texts), expected).nmse
        finally:
            plain.unlink(missing_ok=True)
        ours = errors_of(self._logits(self._ours, path, texts), expected)
        theirs = {way: errors_of(self._logits(self._theirs, path, texts, n), expected) for way, n in WAYS.items()}
        return Row(spec, header.type_mix(), floats, ours, theirs)

    def _logits(self, peer: Peer, model: Path, texts: Sequence[list[int]], chunk: int = 512) -> list[np.ndarray]:
        out = self._folder / "logits"
        worker = Worker(peer, "-fa0" if peer is self._theirs else "", model, self._threads)
        try:
            rows = []
            for tokens in texts:
                worker.ask(do="score", tokens=tokens, chunk=chunk, out=str(out))
                rows.append(np.fromfile(out, np.float32).reshape(len(tokens), -1))
            return rows
        finally:
            worker.close()


def expand(spec: str) -> list[str]:
    """As in bench/models.py, but all types of a base."""
    base, _, kind = spec.partition(":")
    if kind == "all" and (base in models.BASES or base == "1b"):
        return [f"{base}:{name}" for name in TYPES]
    return models.expand(spec)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ["file", "types inside", "F32 apart", "edgellm", *(f"llama.cpp, {way}" for way in WAYS)]
    head += ["ratio", "by text", "centred", f"at most {LIMIT}"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        cells = [row.spec, row.mix, f"{row.floats:.1e}", f"{row.ours.nmse:.2e}"]
        cells += [f"{errors.nmse:.2e}" for errors in row.theirs.values()]
        lines.append(" | ".join([*cells, f"{row.ratio:.3f}", row.by_text, f"{row.centred:.3f}", row.verdict]))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def parser() -> argparse.ArgumentParser:
    """The options."""
    arguments = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    arguments.add_argument("models", nargs="+", metavar="SPEC", help="files, as bench/models.py names them")
    arguments.add_argument("--threads", type=int, default=2, help="for both engines; changes no bit of ours")
    arguments.add_argument("--text", nargs="+", type=Path, metavar="FILE", help="texts instead of the recorded ones")
    arguments.add_argument("--texts", type=int, metavar="N", help="pieces of text (default 40; the 1.2B: 4)")
    arguments.add_argument("--record", action="store_true", help="append the table to bench/RESULTS.md")
    return arguments


def main(words: list[str] | None = None) -> int:
    """Measure, print, record; 1 when a type misses the limit."""
    edgellm_folder()
    options: Any = parser().parse_args(words)
    if options.texts is not None and options.texts < 1:
        parser().error(f"--texts is {options.texts}; it must be at least 1")
    sources = [file.read_text(encoding="utf-8") for file in options.text] if options.text else recorded()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        bench = Bench(options.threads, Path(folder), sources)
        for spec in [one for word in options.models for one in expand(word)]:
            n_texts, n_tokens = TEXTS.get(spec.partition(":")[0], DEFAULT_TEXTS)
            rows.append(bench.measure(spec, options.texts or n_texts, n_tokens))
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
