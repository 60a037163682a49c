"""
Digests of a GGUF file: of the whole, of all tensor data, and of each tensor.

The lines are those of llama.cpp's gguf-hash (``sha256  HEX  FILE:TENSOR``, and ``FILE`` alone for the data of all
tensors, which stays the same when only metadata changes), and one more for the whole file, ``file-sha256``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import FormatError, Unsupported
from edgellm.tools.gguf_file import GgufFile, Report, no_report
from edgellm.tools.gguf_header import Progress

ALGORITHMS = ("sha256", "sha1", "xxh64")
WHOLE = "file-"  # before an algorithm: of the whole file
_LINE = re.compile(rf"((?:{WHOLE})?(?:{'|'.join(ALGORITHMS)}))\s+([0-9a-fA-F]+)\s+(.+)")


@dataclass(frozen=True)
class Digest:
    """A digest; *tensor* None: of all tensor data, or of the file where *algorithm* begins with ``file-``."""

    algorithm: str
    hex: str
    tensor: str | None

    def line(self, file: str) -> str:
        """A manifest's line for it."""
        return f"{self.algorithm:<8}  {self.hex}  {file}" + (f":{self.tensor}" if self.tensor is not None else "")


def _new(algorithm: str) -> Callable[[], Any]:
    if algorithm != "xxh64":
        return lambda: hashlib.new(algorithm, usedforsecurity=False)
    try:
        from xxhash import xxh64
    except ImportError:
        raise Unsupported("xxh64 needs a package that is not here: pip install 'edgellm[tools]'") from None
    return lambda: xxh64(seed=0)


def digests(path: Path, algorithms: Sequence[str] = ("sha256",), report: Report = no_report) -> Iterator[Digest]:
    """
    The digests of a file: of each tensor in order, then of all tensor data, then of the file.

    Args:
        path: The file.
        algorithms: Of ALGORITHMS.
        report: Told of the bytes read.

    Raises:
        FileError, FormatError: The file cannot be read, or is damaged.
        Unsupported: An algorithm needs a package that is not installed.
    """
    makers = {name: _new(name) for name in algorithms}
    with GgufFile(path) as file:
        progress = Progress(report, f"hashing {file.name}", 2 * file.size - file.data_start)
        everything = {name: make() for name, make in makers.items()}
        for tensor in file.tensors:
            one = {name: make() for name, make in makers.items()}
            for chunk in file.tensor_chunks(tensor):
                for name in makers:
                    one[name].update(chunk)
                    everything[name].update(chunk)
                progress.add(len(chunk))
            yield from (Digest(name, one[name].hexdigest(), tensor.name) for name in makers)
        yield from (Digest(name, everything[name].hexdigest(), None) for name in makers)
        whole = {name: make() for name, make in makers.items()}
        for chunk in file.chunks(0, file.size):
            for name in makers:
                whole[name].update(chunk)
            progress.add(len(chunk))
        yield from (Digest(WHOLE + name, whole[name].hexdigest(), None) for name in makers)


def read_manifest(manifest: Path) -> list[Digest]:
    """
    The digests a manifest names; lines of other kinds are passed over. File names in it do not matter.

    Raises:
        FileError: It cannot be read.
        FormatError: It has no digest.
    """
    lines = manifest.read_text("utf-8", "surrogateescape").splitlines()
    matches = [match for match in map(_LINE.fullmatch, map(str.strip, lines)) if match is not None]
    whole = next((match[3] for match in matches if match[1].startswith(WHOLE)), None)
    end = f"{whole}:" if whole is not None else ".gguf:"  # of the file's name, which may end in anything; theirs do so
    found = []
    for match in matches:
        _, colon, tensor = match[3].partition(end)
        found.append(Digest(match[1], match[2].lower(), tensor if colon else None))
    if not found:
        raise FormatError(f"{manifest} has no line like 'sha256  HEX  FILE:TENSOR', as 'edgellm gguf hash' writes them")
    return found


def check(path: Path, manifest: Path, report: Report = no_report) -> list[tuple[str, Digest]]:
    """
    Compare a file with a manifest.

    Returns:
        For every digest a word, "ok", "differs", or "missing" for a tensor the file lacks, and the manifest's digest;
        with the word "unlisted" the file's own digest of a tensor the manifest lacks.

    Raises:
        FileError, FormatError, Unsupported: See `digests` and `read_manifest`.
    """
    wanted = read_manifest(manifest)
    algorithms = sorted({digest.algorithm.removeprefix(WHOLE) for digest in wanted}, key=ALGORITHMS.index)
    actual = {(d.algorithm, d.tensor): d for d in digests(path, algorithms, report)}
    verdicts = []
    for digest in wanted:
        found = actual.pop((digest.algorithm, digest.tensor), None)
        word = "missing" if found is None else "ok" if found.hex == digest.hex else "differs"
        verdicts.append((word, digest))
    listed = {d.tensor for d in wanted if d.tensor is not None}
    if listed:  # a manifest of the whole alone says nothing about tensors
        verdicts += [("unlisted", d) for d in actual.values() if d.tensor is not None and d.tensor not in listed]
    return verdicts
