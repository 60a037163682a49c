"""
A base: what one model thinks of a text, to compare others with.

The format is that of llama.cpp's ``llama-perplexity --kl-divergence-base``, so bases go from one program to the other.
Little-endian: 8 bytes ``_logits_``; int32 n_ctx, n_vocab, n_chunk; the tokens, int32 [n_chunk, n_ctx]; then for each
token scored (the n_ctx - 1 - n_ctx // 2 of the second half of each chunk) float32 step and float32 lowest, and uint16
[n_vocab], one more when n_vocab is odd: log p(i) = lowest + step * value(i). Logits more than 16 below the largest are
recorded as the lowest.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import FileError, FormatError, InvalidArgument
from edgellm.evaluation.chunks import Logits

MAGIC = b"_logits_"
RANGE = 16  # of logits that are told apart
STEPS = 65535
_HEADER = struct.Struct("<8siii")


def row_values(n_vocab: int) -> int:
    """uint16 values of a row: two floats, then the vocabulary, an even number."""
    return 2 * ((n_vocab + 1) // 2) + 4


def n_scored(n_ctx: int) -> int:
    """Tokens of a chunk that are scored."""
    return n_ctx - 1 - n_ctx // 2


def file_bytes(n_ctx: int, n_vocab: int, n_chunk: int) -> int:
    """Of a whole base."""
    return _HEADER.size + n_chunk * (4 * n_ctx + 2 * n_scored(n_ctx) * row_values(n_vocab))


class BaseWriter:
    """Writes a base, row after row, into an open file."""

    def __init__(self, file: BinaryIO, n_vocab: int, chunks: Sequence[Sequence[int]]) -> None:
        self._file, self._n_vocab = file, n_vocab
        file.write(_HEADER.pack(MAGIC, len(chunks[0]), n_vocab, len(chunks)))
        file.write(np.array(chunks, "<i4").tobytes())

    def add(self, rows: Logits, largest: Logits, log_sum: NDArray[np.float64]) -> None:
        """Append the rows of some tokens: [n, n_vocab]; *largest* and *log_sum* as from `log_sums`, [n, 1]."""
        lowest = np.maximum(rows.min(axis=1, keepdims=True), largest - RANGE)
        step = (largest - lowest) / np.float32(STEPS)
        out = np.zeros((len(rows), row_values(self._n_vocab)), "<u2")
        head = np.concatenate([step, lowest - largest - log_sum.astype(np.float32)], axis=1).astype("<f4")
        out[:, :4] = head.view("<u2")
        inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
        out[:, 4 : 4 + self._n_vocab] = np.rint(inverse * np.maximum(rows - lowest, 0))
        self._file.write(out.data)


class Base:
    """
    An open base.

    Attributes:
        n_ctx, n_vocab, n_chunks: As the header says.
        chunks: The tokens.

    Raises:
        FileError, FormatError: It cannot be read, or is none.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise FileError(f"{path}: {error.strerror}") from None
        self._path = path
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        head = self._file.read(_HEADER.size)
        size = os.fstat(self._file.fileno()).st_size
        if len(head) < _HEADER.size or head[:8] != MAGIC:
            raise FormatError(f"{self._path.name} is no recorded base: make one with --save-base")
        _, self.n_ctx, self.n_vocab, self.n_chunks = _HEADER.unpack(head)
        if min(self.n_ctx - 7, self.n_vocab, self.n_chunks) < 1:
            raise FormatError(f"{self._path.name}: n_ctx {self.n_ctx}, n_vocab {self.n_vocab}, {self.n_chunks} chunks")
        if size != file_bytes(self.n_ctx, self.n_vocab, self.n_chunks):
            raise FormatError(f"{self._path.name} is not complete: record it again")
        tokens = np.frombuffer(self._file.read(4 * self.n_chunks * self.n_ctx), "<i4")
        if tokens.min() < 0 or tokens.max() >= self.n_vocab:
            raise FormatError(f"{self._path.name} has tokens outside its vocabulary of {self.n_vocab}")
        self.chunks: list[list[int]] = tokens.reshape(self.n_chunks, self.n_ctx).tolist()

    def check(self, n_vocab: int) -> None:
        """
        Refuse a model with another vocabulary.

        Raises:
            InvalidArgument: Its size is another one.
        """
        if n_vocab != self.n_vocab:
            raise InvalidArgument(
                f"{self._path.name} is of a model with {self.n_vocab} tokens, this one has {n_vocab}: they cannot be "
                "compared"
            )

    def take(self, n: int) -> tuple[Logits, NDArray[np.uint16]]:
        """The next *n* rows: float32 [n, 2] (step, lowest) and uint16 [n, n_vocab]."""
        values = row_values(self.n_vocab)
        raw = np.frombuffer(self._file.read(2 * n * values), "<u2").reshape(n, values)
        return raw[:, :4].copy().view("<f4"), raw[:, 4 : 4 + self.n_vocab]

    def __enter__(self) -> Base:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
