"""
How far a model's predictions are from a recorded base's.

The Kullback-Leibler divergence of the next token's distribution, base first: the nats lost by believing this model
where the base is right; how often both hold the same token most likely; the ratio of perplexities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgellm.evaluation.base import Base
from edgellm.evaluation.chunks import Logits, Reader
from edgellm.evaluation.perplexity import blocks, log_sums, mean_and_error
from edgellm.tools.gguf_file import Report, no_report

PERCENTILES = (99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0)
LEAST = -16.0  # log-probabilities of the base that count


@dataclass(frozen=True)
class Divergence:
    """
    Of a model from a base; divergences in nats.

    Attributes:
        mean, error: Of the divergence over all tokens scored, and its standard error.
        largest, percentiles: The worst token, and by percent.
        same_top, same_top_error: Share of tokens where both models hold the same one most likely.
        value, base_value: Perplexities of this model and of the base.
        ratio, ratio_error: Perplexity of this model by that of the base.
        rms: Root of the mean square of what the probability of the text's token changed by.
        n_tokens, n_chunks, n_ctx: Tokens scored, chunks, tokens of a chunk.
    """

    mean: float
    error: float
    largest: float
    percentiles: dict[str, float]
    same_top: float
    same_top_error: float
    value: float
    base_value: float
    ratio: float
    ratio_error: float
    rms: float
    n_tokens: int
    n_chunks: int
    n_ctx: int


@dataclass
class _Found:
    divergence: list[NDArray[np.float64]] = field(default_factory=list)
    score: list[NDArray[np.float64]] = field(default_factory=list)  # -log p of the text's token
    base_score: list[NDArray[np.float64]] = field(default_factory=list)
    same: list[NDArray[np.bool_]] = field(default_factory=list)


def _add(found: _Found, rows: Logits, following: NDArray[np.int64], base: Base) -> None:
    head, recorded = base.take(len(rows))
    base_log = recorded * head[:, :1] + head[:, 1:]
    largest, log_sum = log_sums(rows)
    log = rows - (largest + log_sum.astype(np.float32))
    counted = np.where(base_log > LEAST, np.exp(base_log) * (base_log - log), 0)
    found.divergence.append(counted.sum(axis=1, dtype=np.float64))
    pick = following[:, None]
    found.score.append(-np.take_along_axis(log, pick, axis=1)[:, 0].astype(np.float64))
    found.base_score.append(-np.take_along_axis(base_log, pick, axis=1)[:, 0].astype(np.float64))
    found.same.append(rows.argmax(axis=1) == recorded.argmax(axis=1))


def divergence(reader: Reader, base: Base, *, report: Report = no_report) -> Divergence:
    """
    Read the base's text with the model and compare.

    Raises:
        InvalidArgument: The model has another vocabulary.
        NumericError: The model produced NaN or infinity.
    """
    base.check(reader.n_vocab)
    found = _Found()
    for number, chunk in enumerate(base.chunks):
        report("reading", number, base.n_chunks)
        for rows, following in reader.scored(chunk):
            for part in blocks(rows):
                _add(found, rows[part], following[part], base)
    report("reading", base.n_chunks, base.n_chunks)
    return _summary(found, base)


def _summary(found: _Found, base: Base) -> Divergence:
    apart, score, base_score = map(np.concatenate, (found.divergence, found.score, found.base_score))
    same = np.concatenate(found.same)
    n = len(apart)
    mean, error = mean_and_error(apart)
    log_ratio, log_ratio_error = mean_and_error(score - base_score)
    share = float(same.mean())
    return Divergence(
        mean=mean,
        error=error,
        largest=float(apart.max()),
        percentiles={f"{p:g}": float(np.percentile(apart, p)) for p in PERCENTILES},
        same_top=share,
        same_top_error=math.sqrt(share * (1 - share) / max(1, n - 1)),
        value=math.exp(float(score.mean())),
        base_value=math.exp(float(base_score.mean())),
        ratio=math.exp(log_ratio),
        ratio_error=math.exp(log_ratio) * log_ratio_error,
        rms=float(np.sqrt(np.mean((np.exp(-score) - np.exp(-base_score)) ** 2))),
        n_tokens=n,
        n_chunks=base.n_chunks,
        n_ctx=base.n_ctx,
    )
