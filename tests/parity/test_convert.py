"""
Converted folders against the folder's own forward pass in NumPy, run by llama.cpp and by edgellm.

What is compared is the whole conversion: names, order of rows, norms, keys, rotary factors. Weights are F32.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM, inspect
from edgellm.embedding import pair_tokens
from tests.support.bert_reference import BertReference, WordPiece
from tests.support.hf_folder import DECODERS, bert_folder, bpe_tokenizer, spm_model, tiny_folder
from tests.support.hf_reference import HfReference
from tests.support.reference import nmse

pytest.importorskip("gguf")
from edgellm.tools.convert import convert
from edgellm.tools.split import split

LLAMA3_SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "short_factor": [1 + i / 4 for i in range(8)], "long_factor": [9.0] * 8}
CASES: dict[str, tuple[str, dict[str, Any]]] = {name.removesuffix("ForCausalLM"): (name, {}) for name in DECODERS} | {
    "Llama scaled": ("LlamaForCausalLM", {"rope_scaling": LLAMA3_SCALING, "attention_bias": True}),
    "Llama linear": ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "Llama tied, spm": ("LlamaForCausalLM", {"tie_word_embeddings": True, "tokenizer": spm_model()}),
    "Phi3 longrope": (
        "Phi3ForCausalLM",
        {"rope_scaling": LONGROPE, "max_position_embeddings": 4096, "original_max_position_embeddings": 512},
    ),
}
TOKENS = [5, 9, 40, 7, 120, 33, 33, 250, 17, 64, 8, 99]


def next_logprobs(path: Path, prompt: Sequence[int], n_vocab: int) -> np.ndarray:
    """llama.cpp's log-probabilities after *prompt*."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.port, params.verbosity, params.warmup = 256, 1, 0, -1, False
    params.cpuparams.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    options = {"n_predict": 1, "temperature": 0, "n_probs": n_vocab, "cache_prompt": False, "logit_bias": [[70, 1e4]]}
    body = json.dumps({"prompt": list(prompt), **options}).encode()
    request = urllib.request.Request(
        f"{server.listening_address}/completion", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        top = json.load(answer)["completion_probabilities"][0]["top_logprobs"]
    out = np.full(n_vocab, np.nan)
    out[[entry["id"] for entry in top]] = [entry["logprob"] for entry in top]
    return out


@pytest.mark.unsanitized("llama.cpp's server races within itself", by="thread")
@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_says_what_the_folder_says(name: str, tmp_path: Path) -> None:
    architecture, options = CASES[name]
    folder = tiny_folder(tmp_path / "folder", architecture, **options)
    made = convert(folder, tmp_path / "model.gguf", "f32")
    assert made.warnings == []
    wanted = HfReference(folder).logits(TOKENS)[-1]
    actual = next_logprobs(made.path, TOKENS, len(wanted))
    assert nmse(actual - actual.mean(), wanted - wanted.mean()) < 1e-6  # ggml's GELU comes from a table over f16


@pytest.mark.parametrize("name", CASES)
def test_edgellm_says_what_the_folder_says(name: str, tmp_path: Path) -> None:
    architecture, options = CASES[name]
    folder = tiny_folder(tmp_path / "folder", architecture, **options)
    made = convert(folder, tmp_path / "model.gguf", "f32")
    with LLM(made.path, n_ctx=64, kv_type="f32") as llm:
        assert nmse(llm.logits([TOKENS])[0], HfReference(folder).logits(TOKENS)) < 1e-6


def test_text_goes_through_a_converted_file(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "folder", tokenizer=bpe_tokenizer(None), dtype="BF16")
    made = convert(folder, tmp_path / "model.gguf")
    assert made.type == "BF16"
    with LLM(made.path, n_ctx=64) as llm:
        ids = llm.tokenizer.encode("the cat, 12 of them")
        assert llm.tokenizer.decode(ids) == b"the cat, 12 of them"
        assert len(ids) < len("the cat, 12 of them")  # merges were found
        assert llm.metadata["tokenizer.ggml.pre"] == "smollm"
        assert "chat_template" in "".join(llm.metadata)


def embeddings(path: Path, texts: Sequence[str]) -> np.ndarray:
    """llama.cpp's sentence embeddings, shape (n_texts, n_embd)."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel, params.verbosity, params.warmup, params.embedding = 1, -1, False, True
    params.cpuparams.n_threads = 1
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    answer = server.handle_embeddings(json.dumps({"input": list(texts)}))
    answer = json.loads(answer) if isinstance(answer, str) else answer
    return np.array([row["embedding"] for row in answer["data"]])


def expected(folder: Path, texts: Sequence[str]) -> np.ndarray:
    reference, words = BertReference.from_folder(folder), WordPiece.from_folder(folder)
    return np.array([reference.embed(words.encode(text)) for text in texts])


def cosines(actual: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sum(actual * wanted, axis=1) / np.linalg.norm(actual, axis=1)
    return found


@pytest.mark.unsanitized("llama.cpp's server races within itself", by="thread")
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_tiny_bert(pooling: str, tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "folder", pooling=pooling)
    made = convert(folder, tmp_path / "model.gguf", "f32")
    texts = ["hello world", "The goings, hello!", "zzz"]
    wanted = expected(folder, texts)
    assert cosines(embeddings(made.path, texts), wanted).min() > 0.9999
    with LLM(made.path) as llm:
        assert cosines(np.asarray(llm.embed(texts)), wanted).min() > 0.9999


@pytest.mark.unsanitized("llama.cpp's server races within itself", by="thread")
def test_llama_cpp_and_edgellm_open_a_split_file(tmp_path: Path) -> None:
    made = convert(tiny_folder(tmp_path / "folder"), tmp_path / "model.gguf", "f32")
    parts = split(made.path, str(tmp_path / "part"), max_tensors=15)
    assert len(parts) == 3
    with LLM(made.path, n_ctx=64, kv_type="f32") as whole, LLM(parts[0].path, n_ctx=64, kv_type="f32") as pieces:
        wanted = whole.logits([TOKENS])[0]
        assert np.array_equal(pieces.logits([TOKENS])[0], wanted)
    actual = next_logprobs(parts[0].path, TOKENS, wanted.shape[1])
    assert nmse(actual - actual.mean(), wanted[-1] - wanted[-1].mean()) < 1e-6


def test_a_tiny_reranker(tmp_path: Path) -> None:
    """BERT's pooler and classifier become GGUF's dense layer with tanh and its output."""
    folder = bert_folder(tmp_path / "folder", architecture="BertForSequenceClassification")
    made = convert(folder, tmp_path / "model.gguf", "f32")
    reference = BertReference.from_folder(folder)
    with LLM(made.path) as llm:
        for found in llm.rerank("hello", ["the world", "goings zz"]):
            wanted = reference.score(*pair_tokens(llm.tokenizer, "hello", found.document, llm.metadata))
            assert found.score == pytest.approx(wanted, abs=0.01)


@pytest.mark.network
def test_minilm(minilm: Path, tmp_path: Path) -> None:
    """The real sentence model: names and keys, and embeddings of llama.cpp and edgellm beside a plain forward pass."""
    texts = ["The quick brown fox.", "How do I reset my password?", "naïve café, 東京", "word " * 25]
    wanted = expected(minilm, texts)
    for kind, limit in (("f32", 0.9999), ("f16", 0.9999), ("q8_0", 0.999)):
        made = convert(minilm, tmp_path / f"{kind}.gguf", kind)
        assert cosines(embeddings(made.path, texts), wanted).min() > limit
        with LLM(made.path) as llm:
            assert cosines(np.asarray(llm.embed(texts)), wanted).min() > limit
    found = inspect(tmp_path / "q8_0.gguf")
    keys = found["metadata"]
    assert (keys["general.architecture"], keys["tokenizer.ggml.model"], keys["bert.pooling_type"]) == ("bert",) * 2 + (
        1,
    )
    assert (keys["bert.block_count"], keys["bert.attention.causal"]) == (6, False)
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.seperator_token_id"]) == (101, 102)
    kinds = {t["name"]: t["type"] for t in found["tensors"]}
    assert (kinds["token_embd.weight"], kinds["position_embd.weight"], kinds["blk.0.attn_q.bias"]) == (
        "Q8_0", "F32", "F32",
    )  # fmt: skip
