"""
Every family's logits against recorded ones: a table, and exit code 1 when one is off.

    python -m tools.parity [--dir DIR] [--only REGEX] [--write docs/models.md [--mark NAME]]

A fixture is NAME.gguf beside NAME.npz: the ids that went in, and what came out at some positions, computed by
another implementation from the file dequantized to F32 and from the file itself. DIR is ../shared/data/archs
where it is, else tiny models made on the spot, with the forward pass in NumPy as the judge.

Two numbers decide. "F32": the file dequantized, a cache in F32, the worst of all ways of feeding the prompt (at
once, in chunks of 7 and 64, token by token, beside another sequence): NMSE below 1e-6, so a wrong formula cannot hide
behind rounding. "Q8_0": the file as it is: below 5e-4, or below four times what the other implementation's rounding of
activations costs.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm import LLM, _native
from edgellm.errors import EdgellmError, Unsupported
from tests.support.gguf_reader import write_f32_copy
from tests.support.reference import nmse

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT.parent / "shared" / "data" / "archs"
F32_LIMIT, Q8_0_LIMIT, Q8_0_FACTOR = 1e-6, 5e-4, 4
Result = tuple[str, float]  # a way to feed the prompt, and its NMSE
UNRECORDED_LIMIT = 2e-3  # of Q8_0 where nobody else's rounding is recorded
CHUNKS = {"at once": None, "chunks of 64": 64, "chunks of 7": 7, "token by token": 1}
SCORE_ROOM = 1000  # a reranker's one score is a small difference of large sums, and nothing is averaged
NEIGHBOUR = 100  # tokens of the sequence that shares the steps


@dataclass(frozen=True)
class Row:
    """
    One fixture's result.

    Attributes:
        name: Of the fixture.
        f32: Worst NMSE over the ways, with the dequantized file; None when nothing was computed.
        q8_0: Likewise with the file as it is.
        allowed: Limit of *q8_0*.
        verdict: "pass", "FAIL: ..." or "not yet" (a family that this version cannot run).
    """

    name: str
    f32: float | None
    q8_0: float | None
    allowed: float
    verdict: str

    @property
    def failed(self) -> bool:
        """Whether something was computed wrongly, or could not be computed though the family is supported."""
        return self.verdict.startswith("FAIL")

    def cells(self) -> list[str]:
        """The row as text."""

        def number(value: float | None) -> str:
            return "" if value is None else f"{value:.1e}"

        return [self.name, number(self.f32), number(self.q8_0), number(self.allowed), self.verdict]


# ---- ways to feed a fixture ----------------------------------------------------------------------------------------


def logits_ways(path: Path, expected: Mapping[str, np.ndarray]) -> Iterator[Result]:
    """A decoder's ways; beside an encoder, after that has read its text."""
    tokens, positions, wanted = expected["tokens"].tolist(), expected["positions"], expected["logits"]
    source = expected["encoder_tokens"].tolist() if "encoder_tokens" in expected else None
    with LLM(path, kv_type="f32", n_ctx=256, threads=1, n_seqs=2) as llm:
        if not llm.info.causal:
            yield from whole_ways(llm, expected)
            return
        for way, chunk in CHUNKS.items():
            yield way, nmse(llm.logits(tokens, chunk=chunk, source=source)[positions], wanted)
        seen = positions < NEIGHBOUR
        sources = None if source is None else [source, source]
        first, second = llm.logits([tokens, tokens[:NEIGHBOUR]], chunk=33, source=sources)
        yield "two sequences", nmse(first[positions], wanted)
        first[positions[seen]] = second[positions[seen]]
        yield "two sequences (the other)", nmse(first[positions], wanted)


def whole_ways(llm: LLM, expected: Mapping[str, np.ndarray]) -> Iterator[Result]:
    """Where every token sees the whole text (diffusion models) that is read at once: what was recorded of it."""
    n = int(expected["prefill"])
    tokens, seen = expected["tokens"][:n].tolist(), expected["positions"] < n
    for way, texts in (("at once", [tokens]), ("two sequences", [tokens, tokens])):
        for logits in llm.logits(texts):
            yield way, nmse(logits[expected["positions"][seen]], expected["logits"][seen])


def embedding_ways(path: Path, expected: Mapping[str, np.ndarray]) -> Iterator[Result]:
    """An encoder's ways: the whole text alone and twice in one step, then every pooling that was recorded."""
    tokens = expected["tokens"].tolist()
    poolings = [name for name in _native.POOLINGS if f"pooled_{name}" in expected]
    with closing(_native.Model(path)) as model:
        for pooling in ("none", *poolings):
            wanted = expected["embeddings" if pooling == "none" else f"pooled_{pooling}"]
            for n in (1, 2):
                for rows in embed(model, [tokens] * n, pooling):
                    error = nmse(rows.reshape(wanted.shape), wanted)
                    yield f"{n} at once, pooling {pooling}", error / (SCORE_ROOM if pooling == "rank" else 1)


def embed(model: _native.Model, texts: list[list[int]], pooling: str) -> list[np.ndarray]:
    """Embeddings of some lists of ids, computed in one step."""
    options = {"n_ctx": 256, "n_batch": 512, "n_seqs": len(texts), "n_threads": 1, "kv_type": "f32"}
    with closing(model.engine(pooling=pooling, **options)) as engine:
        engine.step([(engine.open_seq(), ids, _native.OUT_ALL, False) for ids in texts])
        return [np.frombuffer(engine.embeddings(i)[0], np.float32).copy() for i in range(len(texts))]


# By what a fixture records.
WAYS: dict[str, Callable[[Path, Mapping[str, np.ndarray]], Iterator[Result]]] = {
    "logits": logits_ways,
    "embeddings": embedding_ways,
}


def worst(path: Path, expected: Mapping[str, np.ndarray], kind: str) -> tuple[float, str]:
    """The largest NMSE of a file over all ways, and which way it was."""
    way, error = max(WAYS[kind](path, expected), key=lambda result: (not np.isfinite(result[1]), result[1]))
    return error, way


def check(name: str, path: Path, f32_path: Path, expected: Mapping[str, np.ndarray]) -> Row:
    """Judge one fixture."""
    kind = next(kind for kind in WAYS if kind in expected)
    rounded = expected.get(f"{kind}_int8")
    allowed = UNRECORDED_LIMIT if rounded is None else max(Q8_0_LIMIT, Q8_0_FACTOR * nmse(rounded, expected[kind]))
    f32 = q8_0 = None
    try:
        f32, way = worst(f32_path, expected, kind)
        if not f32 < F32_LIMIT:
            return Row(name, f32, None, allowed, f"FAIL: F32, {way}")
        unpooled = {key: value for key, value in expected.items() if not key.startswith("pooled_")}
        q8_0, way = worst(path, unpooled, kind)
        if not q8_0 < allowed:
            return Row(name, f32, q8_0, allowed, f"FAIL: Q8_0, {way}")
    except Unsupported as error:
        return Row(name, f32, q8_0, allowed, "not yet" if "general.architecture" in str(error) else f"FAIL: {error}")
    except EdgellmError as error:
        return Row(name, f32, q8_0, allowed, f"FAIL: {error}")
    return Row(name, f32, q8_0, allowed, "pass")


# ---- where fixtures come from --------------------------------------------------------------------------------------


def recorded(folder: Path, only: str, scratch: Path) -> Iterator[Row]:
    """Rows of the fixtures in *folder* whose names match."""
    for path in sorted(folder.glob("*.npz")):
        model = path.with_suffix(".gguf")
        if not re.search(only, path.stem) or not model.exists():
            continue
        with np.load(path) as stored:
            expected = dict(stored)
        copy = write_f32_copy(model, scratch / f"{path.stem}.gguf")
        yield check(path.stem, model, copy, expected)
        copy.unlink()


def generated(only: str, scratch: Path) -> Iterator[Row]:
    """Rows of tiny models of every family that the forward pass in NumPy knows."""
    from tests.support.reference import Reference
    from tests.support.tiny import ARCHITECTURES, tiny_model, tiny_tokens

    tokens = np.array(tiny_tokens(168))
    positions = np.arange(0, 168, 5)
    for arch in ARCHITECTURES:
        if not re.search(only, arch):
            continue
        # All experts: rounding may choose another one, and then the logits differ by any amount.
        experts = {"n_expert": 3, "n_expert_used": 3} if arch.endswith("-moe") else {}
        model = tiny_model(scratch / f"{arch}-q8_0.gguf", arch, dtype="q8_0", **experts)
        copy = write_f32_copy(model, scratch / f"{arch}.gguf")
        logits = Reference.from_file(copy).logits(tokens.tolist())[positions]
        yield check(arch, model, copy, {"tokens": tokens, "positions": positions, "logits": logits})


# ---- the table -----------------------------------------------------------------------------------------------------

HEAD = ["fixture", "NMSE F32", "NMSE Q8_0", "allowed", "verdict"]


def markdown(rows: list[list[str]], head: list[str]) -> str:
    """A table with aligned columns."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def vocabulary_rows() -> list[list[str]]:
    """Head and rows of the vocabularies' table."""
    try:
        from tools import parity_vocab
    except ImportError:
        return []
    rows: list[list[str]] = parity_vocab.rows()
    return rows


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    old = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin not in old or end not in old:
        raise SystemExit(f"{path} has no lines {begin} and {end}")
    before, _, rest = old.partition(begin)
    path.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--dir", type=Path, help="folder of fixtures (default: ../shared/data/archs where it is)")
    parser.add_argument("--only", default="", metavar="REGEX", help="fixtures whose names match")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the file's marks as well")
    parser.add_argument("--mark", default="parity", help="which marks (default: parity, and vocabularies with theirs)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Print the rows as they come, then the sum."""
    options = arguments(argv)
    folder = options.dir or (FIXTURES if FIXTURES.is_dir() else None)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        source = recorded(folder, options.only, Path(scratch)) if folder else generated(options.only, Path(scratch))
        print("{:28} {:>9} {:>9} {:>9}  {}".format(*HEAD))
        for row in source:
            rows.append(row)
            print("{:28} {:>9} {:>9} {:>9}  {}".format(*row.cells()), flush=True)
    if not rows:
        print(f"no fixture{f' in {folder}' if folder else ''} matches", file=sys.stderr)
        return 1
    counts: dict[str, int] = {}
    for row in rows:
        verdict = row.verdict.partition(":")[0]
        counts[verdict] = counts.get(verdict, 0) + 1
    print(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    if options.write:
        write_between(options.write, options.mark, markdown([row.cells() for row in rows], HEAD))
        if options.mark == "parity" and (vocabularies := vocabulary_rows()):
            write_between(options.write, "vocabularies", markdown(vocabularies[1:], vocabularies[0]))
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
