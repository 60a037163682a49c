"""Perplexity, divergence and importance matrices of tiny models, against what NumPy makes of their logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM
from edgellm.errors import FormatError, InvalidArgument
from edgellm.evaluation.base import Base, BaseWriter, file_bytes, n_scored
from edgellm.evaluation.chunks import Reader, read_text
from edgellm.evaluation.divergence import divergence
from edgellm.evaluation.importance import importance
from edgellm.evaluation.perplexity import perplexity
from tests.support.reference import Reference

TEXT = "the cat and the other cat is in the house of the man, and on it goes in the rain. " * 9
CTX = 48


@pytest.fixture(scope="module")
def path(tiny: Callable[..., Path]) -> Path:
    return tiny("llama")


def log_probabilities(path: Path, chunk: list[int]) -> np.ndarray:
    """float64 [n_scored, n_vocab] of the second half."""
    with LLM(path, n_ctx=CTX, threads=1) as llm:
        rows = llm.logits(chunk)[CTX // 2 : CTX - 1].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    found: np.ndarray = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return found


def test_perplexity(path: Path) -> None:
    with Reader(path, CTX, 1) as reader:
        chunks = reader.chunks(TEXT)
        assert len(chunks) >= 5
        assert reader.chunks(TEXT, 2) == chunks[:2]
        told: list[tuple[int, int]] = []
        found = perplexity(reader, chunks, report=lambda what, done, total: told.append((done, total)))
    scores = [-log_probabilities(path, chunk)[range(n_scored(CTX)), chunk[CTX // 2 + 1 :]] for chunk in chunks]
    mean, deviation = float(np.mean(scores)), float(np.std(scores))
    assert found.value == pytest.approx(math.exp(mean), rel=1e-6)
    assert found.error == pytest.approx(math.exp(mean) * deviation / math.sqrt(np.size(scores) - 1), rel=1e-5)
    assert (found.n_tokens, found.n_chunks, found.n_ctx) == (np.size(scores), len(chunks), CTX)
    assert told[-1] == (len(chunks), len(chunks))


def test_bos_begins_every_chunk(tiny: Callable[..., Path]) -> None:
    path = tiny("llama", metadata={"tokenizer.ggml.add_bos_token": True})
    with Reader(path, CTX, 1) as reader:
        chunk = reader.chunks(TEXT)[1]
        expected = log_probabilities(path, [1, *chunk[1:]])
        found = perplexity(reader, [chunk])
    scores = -expected[range(n_scored(CTX)), chunk[CTX // 2 + 1 :]]
    assert found.value == pytest.approx(math.exp(float(scores.mean())), rel=1e-6)


def record(path: Path, base: Path) -> list[list[int]]:
    with Reader(path, CTX, 1) as reader, base.open("wb") as file:
        chunks = reader.chunks(TEXT, 3)
        perplexity(reader, chunks, base=BaseWriter(file, reader.n_vocab, chunks))
    return chunks


def test_divergence_from_another_model(path: Path, tiny: Callable[..., Path], tmp_path: Path) -> None:
    other = tiny("llama", seed=8)
    chunks = record(path, tmp_path / "base")
    with Base(tmp_path / "base") as base, Reader(other, CTX, 1) as reader:
        assert base.chunks == chunks
        assert (tmp_path / "base").stat().st_size == file_bytes(CTX, reader.n_vocab, 3)
        found = divergence(reader, base)
    p = np.concatenate([log_probabilities(path, chunk) for chunk in chunks])
    q = np.concatenate([log_probabilities(other, chunk) for chunk in chunks])
    apart = (np.exp(p) * (p - q)).sum(axis=1)
    next_tokens = np.concatenate([chunk[CTX // 2 + 1 :] for chunk in chunks])
    score_p, score_q = (-x[range(len(x)), next_tokens] for x in (p, q))
    assert found.mean == pytest.approx(apart.mean(), rel=1e-3)
    assert found.largest == pytest.approx(apart.max(), rel=1e-3)
    assert found.percentiles["50"] == pytest.approx(np.median(apart), rel=1e-3)
    assert found.same_top == (p.argmax(1) == q.argmax(1)).mean()
    assert found.value == pytest.approx(math.exp(score_q.mean()), rel=1e-5)
    assert found.base_value == pytest.approx(math.exp(score_p.mean()), rel=1e-3)
    assert found.ratio == pytest.approx(math.exp((score_q - score_p).mean()), rel=1e-3)


def test_a_model_is_its_own_base(path: Path, tmp_path: Path) -> None:
    record(path, tmp_path / "base")
    with Base(tmp_path / "base") as base, Reader(path, CTX, 1) as reader:
        found = divergence(reader, base)
    assert abs(found.mean) < 1e-5
    assert found.same_top == 1
    assert found.ratio == pytest.approx(1, abs=1e-4)


def test_refusals(path: Path, tiny: Callable[..., Path], tmp_path: Path) -> None:
    record(path, tmp_path / "base")
    data = (tmp_path / "base").read_bytes()
    cases: list[tuple[bytes, str]] = [(data[:10], "no recorded base"), (b"x" + data[1:], "no recorded base")]
    cases += [(data[:-2], "not complete"), (data[:8] + b"\xff" * 12 + data[20:], "n_ctx -1")]
    cases += [(data[:20] + b"\xff" * 4 + data[24:], "tokens outside its vocabulary")]
    for damaged, says in cases:
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(FormatError, match=says):
            Base(tmp_path / "damaged")
    other = tiny("llama", tokenizer="test")
    with (
        Base(tmp_path / "base") as base,
        Reader(other, CTX, 1) as reader,
        pytest.raises(InvalidArgument, match="cannot be compared"),
    ):
        divergence(reader, base)
    with Reader(path, CTX, 1) as reader, pytest.raises(InvalidArgument, match="one chunk takes 48"):
        reader.chunks("the cat")
    with pytest.raises(InvalidArgument, match="use at least 8"):
        Reader(path, 4, 1)
    (tmp_path / "text").write_bytes(b"abc\xff")
    with pytest.raises(InvalidArgument, match="not UTF-8 text: byte 3"):
        read_text(tmp_path / "text")


# ---- importance ------------------------------------------------------------------------------------------------------


class Watcher(Reference):
    """A reference that keeps the squares of what goes into its products."""

    sums: dict[str, Any]

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        self.sums[name] = self.sums.get(name, 0) + np.square(x).reshape(-1, x.shape[-1]).sum(axis=0)
        return super().linear(x, name)


def test_importance_is_what_went_into_products(path: Path) -> None:
    watcher = Watcher.from_file(path)
    watcher.sums = {}
    with Reader(path, CTX, 1) as reader:
        chunks = reader.chunks(TEXT, 3)
        found = importance(reader, chunks, "cats", head=True)
        before = perplexity(reader, chunks[:1]).value  # it is still good for everything else
    for chunk in chunks:
        watcher.logits(chunk)
    with Reader(path, CTX, 1) as reader:
        assert perplexity(reader, chunks[:1]).value == before
    assert (found.datasets, found.chunk_count, found.chunk_size) == (["cats"], 3, CTX)
    assert sorted(found.sums) == sorted(f"{name}.weight" for name in watcher.sums)
    for name, sums in watcher.sums.items():
        np.testing.assert_allclose(found.sums[f"{name}.weight"][0], sums, rtol=0.02, atol=1e-3 * sums.max())
    assert all(counts.tolist() == [3 * CTX] for counts in found.counts.values())


def test_importance_of_experts(tiny: Callable[..., Path]) -> None:
    path = tiny("llama-moe")
    with Reader(path, CTX, 1) as reader:
        used = 2
        found = importance(reader, reader.chunks(TEXT, 2), "cats")
    counts = found.counts["blk.0.ffn_gate_exps.weight"]
    assert counts.sum() == 2 * CTX * used
    assert found.sums["blk.0.ffn_down_exps.weight"].shape == (len(counts), 64)
    gate, up = found.sums["blk.0.ffn_gate_exps.weight"], found.sums["blk.0.ffn_up_exps.weight"]
    np.testing.assert_array_equal(gate, up)
    router = found.sums["blk.0.ffn_gate_inp.weight"]
    np.testing.assert_allclose(gate.sum(axis=0) / used, router[0], rtol=1e-5)
    assert "output.weight" not in found.sums
