"""Embeddings and reranking through the library, against a BERT in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM, Tokenizer, _native
from edgellm.embedding import RERANK_TEMPLATE, pair_tokens
from edgellm.errors import ContextOverflow, InvalidArgument, Unsupported
from edgellm.testing import tiny_model
from tests.support import bert_reference
from tests.support.bert_reference import BertReference
from tests.support.encoders import tiny_reranker, wordpiece
from tests.support.gguf_reader import read_gguf

TEXTS = ["a cat sat", "the dog ran over the hill and far away", "rain", "she is at sea in a boat of tin"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a classifier for pairs."""
    return tiny_reranker(tmp_path_factory.mktemp("embedding") / "bert.gguf")


@pytest.fixture(scope="module")
def reference(bert: Path) -> Iterator[BertReference]:
    """The same in NumPy, with the GELU that GGUF's runtimes use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            bert_reference, "gelu", lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        )
        yield BertReference.from_gguf(*read_gguf(bert))


@pytest.fixture(scope="module")
def llm(bert: Path) -> Iterator[LLM]:
    with LLM(bert, threads=1) as opened:
        yield opened


def ids(llm: LLM, text: str) -> list[int]:
    return llm.tokenizer.encode(text, add_special=True)


# ---- embed -----------------------------------------------------------------------------------------------------------


def test_pooling_kinds(llm: LLM, reference: BertReference) -> None:
    hidden = reference.hidden(ids(llm, TEXTS[1]))
    assert llm.embed(TEXTS[1], normalize=False) == pytest.approx(hidden.mean(axis=0), abs=1e-4)
    assert llm.embed(TEXTS[1], pooling="cls", normalize=False) == pytest.approx(hidden[0], abs=1e-4)
    assert llm.embed(TEXTS[1], pooling="last", normalize=False) == pytest.approx(hidden[-1], abs=1e-4)
    assert llm.embed(TEXTS[1], pooling="none", normalize=False) == pytest.approx(hidden, abs=1e-4)


def test_shapes_lengths_and_dimensions(llm: LLM) -> None:
    vectors = llm.embed(TEXTS)
    assert vectors.shape == (4, llm.info.n_embd_out)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert not np.allclose(np.linalg.norm(llm.embed(TEXTS, normalize=False), axis=1), 1)
    short = llm.embed(TEXTS, dimensions=32)
    assert short == pytest.approx(vectors[:, :32] / np.linalg.norm(vectors[:, :32], axis=1, keepdims=True), abs=1e-6)
    assert llm.embed([]).shape == (0, llm.info.n_embd_out)
    tables = llm.embed(TEXTS, pooling="none")
    assert [table.shape for table in tables] == [(len(ids(llm, text)), llm.info.n_embd_out) for text in TEXTS]


def test_a_vector_depends_on_its_text_alone(llm: LLM) -> None:
    """Whatever else is in the call, in whatever order; more texts than a step takes."""
    alone = [llm.embed(text) for text in TEXTS]
    many = [TEXTS[i % 4] for i in range(150)]
    for number, vector in enumerate(llm.embed(many)):
        assert np.array_equal(vector, alone[number % 4])
    assert np.array_equal(llm.embed(TEXTS[::-1]), alone[::-1])
    assert np.array_equal(llm.embed([ids(llm, text) for text in TEXTS]), alone)


def test_what_is_too_long(llm: LLM) -> None:
    long = "a " * 100
    with pytest.raises(ContextOverflow, match=r"text 1 has 102 tokens, and this model takes 64"):
        llm.embed(["a", long])
    cut = llm.embed(long, truncate=True)
    assert np.array_equal(cut, llm.embed("a " * 62))


def test_wrong_arguments(llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="pooling is 'max'; it must be one of"):
        llm.embed("a", pooling="max")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="dimensions is 4096"):
        llm.embed("a", dimensions=4096)
    with pytest.raises(InvalidArgument, match="text 0 is empty"):
        llm.embed([[]])
    with pytest.raises(InvalidArgument, match="token 5000 is outside the vocabulary"):
        llm.embed([[5000]])
    with pytest.raises(Unsupported, match="is a bert model: it gives embeddings, not text"):
        llm.generate("a")
    with pytest.raises(InvalidArgument, match="documents is one text"):
        llm.rerank("a", "b")


def test_long_texts_of_a_causal_model(tmp_path: Path) -> None:
    """Read in several steps; the last row is the one that a single step gives."""
    path = tiny_model("qwen3", tmp_path / "m.gguf", ctx=2048, weight_type="F32")
    tokens = [7 + i * 13 % 280 for i in range(1100)]
    with LLM(path, threads=1) as llm:
        parts = llm.embed([tokens, tokens[:3]], pooling="last", normalize=False)
        rows = llm.embed(tokens, pooling="none", normalize=False)
    with (
        closing(_native.Model(path)) as model,
        closing(model.engine(n_ctx=2048, n_batch=2048, n_seqs=1, n_threads=1, kv_type="f32", pooling="last")) as engine,
    ):
        engine.step([(engine.open_seq(), tokens, _native.OUT_ALL, False)])
        whole = np.frombuffer(engine.embeddings(0)[0], np.float32).copy()
    assert np.array_equal(parts[0], whole)
    assert rows.shape == (1100, len(whole))
    assert np.array_equal(rows[-1], whole)


# ---- rerank ----------------------------------------------------------------------------------------------------------


def test_a_cross_encoder_reads_pairs_with_their_types(llm: LLM, reference: BertReference) -> None:
    plain = [llm.tokenizer.encode(text) for text in TEXTS]
    query = [2, *plain[0], 3]
    expected = [reference.score([*query, *one, 3], len(query)) for one in plain]
    found = llm.rerank(TEXTS[0], TEXTS)
    assert {one.index: one.score for one in found} == pytest.approx(dict(enumerate(expected)), abs=1e-4)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    without = [reference.score([*query, *one, 3], 1000) for one in plain]
    assert max(abs(a - b) for a, b in zip(expected, without, strict=True)) > 1e-2
    best = llm.rerank(TEXTS[0], TEXTS, top_n=1)
    assert best == found[:1]
    assert best[0].document == TEXTS[best[0].index]


def test_long_pairs(llm: LLM) -> None:
    with pytest.raises(ContextOverflow, match="text 1 has"):
        llm.rerank("a", ["b", "c " * 80])
    assert len(llm.rerank("a", ["b", "c " * 80], truncate=True)) == 2
    assert len(llm.rerank("a " * 80, ["b"], truncate=True)) == 1


def test_a_model_without_classifier(tmp_path: Path) -> None:
    path = tiny_model("bert", tmp_path / "m.gguf", metadata=wordpiece())
    with LLM(path, threads=1) as llm, pytest.raises(Unsupported, match="classifier"):
        llm.rerank("a", ["b"])


@pytest.fixture
def vocabulary(tmp_path: Path) -> Callable[..., tuple[Tokenizer, dict[str, Any]]]:
    """A tokenizer and its metadata, of a file with some keys."""

    def make(**keys: Any) -> tuple[Tokenizer, dict[str, Any]]:
        metadata = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
        path = tiny_model("bert", tmp_path / "v.gguf", n_layer=1, metadata=metadata)
        return Tokenizer(path), _native.inspect(path)["metadata"]

    return make


def test_what_stands_between_two_texts(vocabulary: Callable[..., Any], tmp_path: Path) -> None:
    """[SEP] once in BERT's files, whatever they say of single texts; </s></s> in RoBERTa's."""
    path = tiny_model("bert", tmp_path / "b.gguf", metadata={**wordpiece(), "tokenizer.ggml.add_sep_token": True})
    ids, second = pair_tokens(Tokenizer(path), "cat", "dog", _native.inspect(path)["metadata"])
    assert [Tokenizer(path).token(i) for i in ids] == [b"[CLS]", "▁cat".encode(), b"[SEP]", "▁dog".encode(), b"[SEP]"]
    assert second == 3
    roles = {"bos_token_id": 1, "eos_token_id": 2, "seperator_token_id": 2}
    for flag, between in ((None, [2]), (False, [2]), (True, [2, 2])):
        tokenizer, metadata = vocabulary(**roles, add_sep_token=flag)
        a, b = tokenizer.encode("a"), tokenizer.encode("b")
        assert pair_tokens(tokenizer, "a", "b", metadata) == ([1, *a, *between, *b, 2], 1 + len(a) + len(between))


def test_a_template_is_not_open_to_the_texts(vocabulary: Callable[..., Any]) -> None:
    """Its own control tokens count; a placeholder or a control token within a text is text."""
    tokenizer, metadata = vocabulary()
    metadata[RERANK_TEMPLATE] = "<|im_start|>{query}: {document}<|im_end|>"
    ids, _ = pair_tokens(tokenizer, "is it", "in", metadata)
    assert ids == tokenizer.encode("<|im_start|>is it: in<|im_end|>", parse_special=True)
    ids, _ = pair_tokens(tokenizer, "say {document}", "<|im_end|>on", metadata)
    assert ids == [1, *tokenizer.encode("say {document}: <|im_end|>on"), 2]
