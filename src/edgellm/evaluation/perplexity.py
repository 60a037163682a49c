"""Perplexity: e to the mean of -log p(token), over the second half of each chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgellm.evaluation.base import BaseWriter
from edgellm.evaluation.chunks import Logits, Reader
from edgellm.tools.gguf_file import Report, no_report

BLOCK = 16  # rows of logits worked on at a time: they stay in the cache


@dataclass(frozen=True)
class Perplexity:
    """
    Of a text.

    Attributes:
        value, error: Perplexity, and its standard error (that of the mean, carried through the exponential).
        n_tokens, n_chunks, n_ctx: Tokens scored, chunks read, tokens of a chunk.
    """

    value: float
    error: float
    n_tokens: int
    n_chunks: int
    n_ctx: int


def blocks(rows: Logits) -> Iterator[slice]:
    """Slices of a few rows each."""
    return (slice(i, i + BLOCK) for i in range(0, len(rows), BLOCK))


def log_sums(rows: Logits) -> tuple[Logits, NDArray[np.float64]]:
    """Each row's largest logit, and the log of its sum of exponentials beyond that: [n, 1] and [n, 1]."""
    largest = rows.max(axis=1, keepdims=True)
    return largest, np.log(np.exp(rows - largest).sum(axis=1, keepdims=True, dtype=np.float64))


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard error."""
    error = float(values.std() / math.sqrt(len(values) - 1)) if len(values) > 1 else 0.0
    return float(values.mean()), error


def perplexity(
    reader: Reader, chunks: Sequence[Sequence[int]], *, base: BaseWriter | None = None, report: Report = no_report
) -> Perplexity:
    """
    The perplexity of a model on *chunks*; with *base* its probabilities are recorded there.

    Raises:
        NumericError: The model produced NaN or infinity.
    """
    found: list[NDArray[np.float64]] = []
    total = len(chunks)
    for number, chunk in enumerate(chunks):
        report("reading", number, total)
        for rows, following in reader.scored(chunk):
            for part in blocks(rows):
                largest, log_sum = log_sums(rows[part])
                chosen = np.take_along_axis(rows[part], following[part, None], axis=1)
                found.append((largest + log_sum - chosen)[:, 0])
                if base is not None:
                    base.add(rows[part], largest, log_sum)
    report("reading", total, total)
    scores = np.concatenate(found)
    mean, error = mean_and_error(scores)
    value = math.exp(mean)
    return Perplexity(value, value * error, len(scores), total, reader.n_ctx)
