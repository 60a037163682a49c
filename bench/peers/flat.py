"""Steps as the flat arrays that llama.cpp's family of batches wants."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

from bench.peers.worker import Item

Part = tuple[int, Any, Any, Any, Any]  # count, tokens, sequences, positions, wanted


class FlatBatch:
    """Knows how long each sequence is, and where the last step's wanted rows lie."""

    def __init__(self, n_seqs: int) -> None:
        self._lengths = [0] * n_seqs
        self.rows: list[int] = []  # per item of the last step: its row in the last part

    def clear(self) -> None:
        """All sequences are empty again."""
        self._lengths = [0] * len(self._lengths)

    def parts(self, items: Sequence[Item], n_max: int, every: bool = False) -> Iterator[Part]:
        """
        The step in one part; a single item of more than *n_max* tokens in several. *every*: all rows are wanted.

        Yields: (count, int32 tokens, int32 sequences, int32 positions, int8 wanted), each of *count* items.
        """
        total = sum(len(tokens) for _, tokens in items)
        if total > n_max:
            ((seq, tokens),) = items
            for at in range(0, total, n_max):
                yield self._part([(seq, tokens[at : at + n_max])], every)
            return
        yield self._part(items, every)

    def _part(self, items: Sequence[Item], every: bool) -> Part:
        ids: list[int] = []
        seqs: list[int] = []
        positions: list[int] = []
        want: list[int] = []
        self.rows = []
        for seq, tokens in items:
            n, length = len(tokens), self._lengths[seq]
            ids += tokens
            seqs += [seq] * n
            positions += range(length, length + n)
            want += [int(every)] * (n - 1) + [1]
            self.rows.append(len(ids) - 1)
            self._lengths[seq] = length + n
        n = len(ids)
        int32 = ctypes.c_int32 * n
        return n, int32(*ids), int32(*seqs), int32(*positions), (ctypes.c_int8 * n)(*want)
