"""
Rounding moves our logits no further than llama.cpp's, for every weight type, on tiny models of random blocks.

Judged against the same weights in F32, dequantized by the package gguf. `python -m bench.accuracy` does this with real
models. llama.cpp tells log-probabilities, so all logits are compared without their mean.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM
from tests.support.gguf_writer import write_gguf
from tests.support.tiny import tiny_metadata, tiny_tokens

gguf = pytest.importorskip("gguf")
xllamacpp = pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.unsanitized("llama.cpp's server races within itself", by="thread")

TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4"]
TYPES += ["f16", "bf16", "f32"]
SIZES = {"n_embd": 256, "n_ff": 512, "head_size": 64}
PROMPTS = [tiny_tokens(20, seed=seed) for seed in range(48)]
LIMIT = 1.1
EXACT = 1e-9  # NMSE of float32 arithmetic, to where no ratio means anything


def f32_copy(source: Path, target: Path) -> Path:
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(source).tensors}
    return write_gguf(target, tiny_metadata("llama", **SIZES), tensors)


def ours(path: Path) -> np.ndarray:
    """Centred logits after each prompt."""
    with LLM(path, n_ctx=64, n_seqs=8, threads=1, kv_type="f32") as llm:
        rows = np.array([rows[-1] for rows in llm.logits(PROMPTS)], np.float64)
    return rows - rows.mean(1, keepdims=True)


def theirs(path: Path, n_vocab: int) -> np.ndarray:
    """The same of llama.cpp."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.port, params.verbosity, params.warmup = 256, 1, 0, -1, False
    params.cpuparams.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    rows = np.full((len(PROMPTS), n_vocab), np.nan)
    for row, prompt in zip(rows, PROMPTS, strict=True):
        top = next_token(server.listening_address, prompt, n_vocab)
        row[[entry["id"] for entry in top]] = [entry["logprob"] for entry in top]
    return rows - rows.mean(1, keepdims=True)


def next_token(address: str, prompt: Sequence[int], n_vocab: int) -> list[dict[str, Any]]:
    # The bias has a whole character chosen, for without one llama.cpp tells nothing. What it tells is without the bias.
    options = {"n_predict": 1, "temperature": 0, "n_probs": n_vocab, "cache_prompt": False, "logit_bias": [[70, 1e4]]}
    body = json.dumps({"prompt": prompt, **options}).encode()
    request = urllib.request.Request(f"{address}/completion", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        top: list[dict[str, Any]] = json.load(answer)["completion_probabilities"][0]["top_logprobs"]
    return top


@pytest.mark.parametrize("kind", TYPES)
def test_no_further_from_f32_than_llama_cpp(kind: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = tiny("llama", dtype=kind if kind in ("f32", "f16", "bf16") else f"random {kind}", **SIZES)
    exact = ours(f32_copy(path, tmp_path / "f32.gguf"))
    scale = np.sum(exact**2)
    our_error = np.sum((ours(path) - exact) ** 2) / scale
    their_error = np.sum((theirs(path, exact.shape[1]) - exact) ** 2) / scale
    print(f"{kind}: {our_error:.3e}, llama.cpp {their_error:.3e}, ratio {our_error / their_error:.3f}")
    assert our_error <= max(LIMIT * their_error, EXACT)
    assert their_error < (EXACT if kind == "f32" else 0.1)
