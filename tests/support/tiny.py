"""
Tiny random models, written in milliseconds: two layers, a byte-level vocabulary, under 1 MB.

They answer with noise, but they are whole: text goes in and out, chat templates render, generations end.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.testing.gguf_writer import Tensor, quantize_q8_0, write_gguf
from edgellm.testing.vocabulary import bpe_vocabulary, byte_letters, dummy_vocabulary
from tests.support import linear_attention, recurrent
from tests.support.blocks import LAYOUTS, random_blocks

__all__ = [
    "ARCHITECTURES",
    "bpe_vocabulary",
    "byte_letters",
    "tiny_metadata",
    "tiny_model",
    "tiny_tensors",
    "tiny_tokens",
]
ARCHITECTURES = ("llama", "llama-moe", "mistral3", "gemma3", *recurrent.ARCHITECTURES, *linear_attention.ARCHITECTURES)
PLAIN = ("gate_inp", "conv.weight", "conv1d", "ssm_a", "ssm_d", "ssm_norm", "lerp")  # tensors that stay f32


def tiny_metadata(
    arch: str,
    *,
    n_layer: int = 2,
    n_ctx: int = 512,
    n_embd: int = 64,
    n_head: int = 4,
    n_head_kv: int = 2,
    head_size: int = 32,
    n_ff: int = 0,
    n_expert: int = 4,
    n_expert_used: int = 2,
    tokenizer: str = "bpe",
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Header of a tiny model; *metadata* adds keys or replaces them (``None`` removes one)."""
    assert arch in ARCHITECTURES, arch
    name = arch.removesuffix("-moe")
    vocabulary = dummy_vocabulary() if tokenizer == "test" else bpe_vocabulary()
    keys: dict[str, Any] = {
        "general.architecture": name,
        "general.name": f"tiny {arch}",
        f"{name}.vocab_size": len(vocabulary["tokenizer.ggml.tokens"]),
        f"{name}.context_length": n_ctx,
        f"{name}.embedding_length": n_embd,
        f"{name}.block_count": n_layer,
        f"{name}.feed_forward_length": n_ff or (64 if arch == "llama-moe" else 96),
        f"{name}.attention.head_count": n_head,
        f"{name}.attention.head_count_kv": n_head_kv,
        f"{name}.attention.key_length": head_size,
        f"{name}.attention.value_length": head_size,
        f"{name}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{name}.rope.dimension_count": head_size,
        f"{name}.rope.freq_base": 10000.0,
    }
    if arch == "llama-moe":
        keys |= {f"{name}.expert_count": n_expert, f"{name}.expert_used_count": n_expert_used}
    if arch == "gemma3":
        keys |= {
            f"{name}.attention.sliding_window": 24,
            f"{name}.attention.sliding_window_pattern": 2,
            f"{name}.rope.freq_base": 1000000.0,
        }
    if arch in recurrent.ARCHITECTURES:
        keys |= {f"{name}.{key}": value for key, value in recurrent.keys(arch, n_layer, n_embd, n_head_kv).items()}
    if arch in linear_attention.ARCHITECTURES:
        keys |= {f"{name}.{key}": value for key, value in linear_attention.keys(arch).items()}
    keys |= vocabulary
    keys |= metadata or {}
    return {key: value for key, value in keys.items() if value is not None}


def tiny_tensors(
    metadata: dict[str, Any], *, seed: int = 7, tied: bool = False, bias: bool = False, rope_factors: bool = False
) -> Iterator[tuple[str, np.ndarray]]:
    """Random weights for such a header: names and float32 arrays."""
    random = np.random.default_rng(seed)
    arch = metadata["general.architecture"]
    key = {name.removeprefix(f"{arch}."): value for name, value in metadata.items()}
    n_embd, n_ff, n_vocab = key["embedding_length"], key.get("feed_forward_length", 0), key["vocab_size"]
    size = key["attention.key_length"]
    n_q, heads = key["attention.head_count"] * size, key["attention.head_count_kv"]

    def matrix(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 1.5 / np.sqrt(shape[-1])).astype(np.float32)

    def vector(n: int, mean: float = 0.0) -> np.ndarray:
        return (mean + 0.2 * random.standard_normal(n)).astype(np.float32)

    yield "token_embd.weight", random.standard_normal((n_vocab, n_embd)).astype(np.float32)
    if not tied and arch == "rwkv7":
        yield "output.weight", 2 * matrix(n_vocab, n_embd)
    if arch == "rwkv7":
        yield from linear_attention.rwkv7_tensors(key, random, matrix)
        return
    yield "token_embd_norm.weight" if arch == "lfm2" else "output_norm.weight", vector(n_embd, 1)
    if not tied:
        yield "output.weight", 2 * matrix(n_vocab, n_embd)
    if rope_factors:
        yield "rope_freqs.weight", np.linspace(1, 8, size // 2, dtype=np.float32) * random.choice([-1, 1], size // 2)
    for layer in range(key["block_count"]):
        name = f"blk.{layer}"
        yield f"{name}.attn_norm.weight", vector(n_embd, 1)
        n_kv = (heads[layer] if isinstance(heads, list) else heads) * size
        attends = n_kv and arch != "mamba2"
        qwen = arch in linear_attention.ARCHITECTURES
        projections = (
            ("q", n_q * (2 if qwen else 1), n_embd),
            ("k", n_kv, n_embd),
            ("v", n_kv, n_embd),
            ("output", n_embd, n_q),
        )
        if qwen and not linear_attention.attends(key, layer):
            yield from linear_attention.delta_tensors(name, key, random, matrix, arch == "qwen3next")
            attends = 0
        elif not attends:
            yield from recurrent.tensors(name, key, random, matrix)
        for part, rows, columns in projections if attends else ():
            yield f"{name}.attn_{part}.weight", matrix(rows, columns)
            if bias and not (arch == "gemma3" and part == "output"):
                yield f"{name}.attn_{part}.bias", vector(rows)
        if not n_ff:
            continue
        yield f"{name}.{'post_attention' if qwen else 'ffn'}_norm.weight", vector(n_embd, 1)
        if attends and (qwen or arch in ("gemma3", "lfm2")):
            yield f"{name}.attn_q_norm.weight", vector(size, 1)
            yield f"{name}.attn_k_norm.weight", vector(size, 1)
        if arch == "gemma3":
            yield f"{name}.post_attention_norm.weight", vector(n_embd, 1)
            yield f"{name}.post_ffw_norm.weight", vector(n_embd, 1)
        if n_expert := key.get("expert_count", 0):
            yield f"{name}.ffn_gate_inp.weight", 2 * matrix(n_expert, n_embd)
            yield f"{name}.ffn_gate_exps.weight", matrix(n_expert, n_ff, n_embd)
            yield f"{name}.ffn_up_exps.weight", matrix(n_expert, n_ff, n_embd)
            yield f"{name}.ffn_down_exps.weight", matrix(n_expert, n_embd, n_ff)
            continue
        for part, rows, columns in (("gate", n_ff, n_embd), ("up", n_ff, n_embd), ("down", n_embd, n_ff)):
            yield f"{name}.ffn_{part}.weight", matrix(rows, columns)
            if bias and arch != "gemma3":
                yield f"{name}.ffn_{part}.bias", vector(rows)


def tiny_model(
    path: str | PathLike[str],
    arch: str = "llama",
    *,
    seed: int = 7,
    tied: bool = False,
    bias: bool = False,
    rope_factors: bool = False,
    dtype: str = "f32",
    **overrides: Any,
) -> Path:
    """
    Write a tiny random model.

    Args:
        path: Where to.
        arch: One of ARCHITECTURES.
        seed: The same seed gives the same file.
        tied: The output matrix is the embedding.
        bias: Every linear layer that may have a bias has one.
        rope_factors: Add divisors of the rotary angles, some negative.
        dtype: Type of the matrices: "f32", "f16", "bf16", "q8_0", or "random q4_k" and the like for random blocks of a
            type in tests.support.blocks. Vectors and the expert router stay f32; so do rows that are not whole blocks.
        **overrides: Arguments of tiny_metadata (sizes, ``tokenizer="test"``, ``metadata={...}``).

    Returns:
        The path.
    """
    metadata = tiny_metadata(arch, **overrides)
    stored: dict[str, np.ndarray | Tensor] = {}
    for name, array in tiny_tensors(metadata, seed=seed, tied=tied, bias=bias, rope_factors=rope_factors):
        plain = array.ndim == 1 or any(part in name for part in PLAIN)
        stored[name] = array if plain else _matrix(array, dtype)
    return write_gguf(path, metadata, stored)


def _matrix(array: np.ndarray, dtype: str) -> np.ndarray | Tensor:
    if dtype == "f16":
        return array.astype(np.float16)
    if dtype == "bf16":
        return Tensor(array.shape, 30, (array.view(np.uint32) >> 16).astype("<u2").tobytes())
    if dtype == "q8_0":
        return quantize_q8_0(array)
    if dtype.startswith("random "):
        kind = dtype.removeprefix("random ")
        if array.shape[-1] % LAYOUTS[kind].elements == 0:
            return random_blocks(kind, array.shape, np.random.default_rng(array.size))
    return array


def tiny_tokens(n: int, n_vocab: int = 128, seed: int = 11) -> list[int]:
    """Token ids to feed, none of them a control token."""
    return [int(i) for i in np.random.default_rng(seed).integers(3, n_vocab, n)]
