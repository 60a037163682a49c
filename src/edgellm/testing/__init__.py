"""
Models to test with, without a download.

    from edgellm import LLM
    from edgellm.testing import tiny_model

    with LLM(tiny_model("llama")) as llm:
        print(llm.chat([{"role": "user", "content": "Hello"}], max_tokens=8)["usage"])

They answer with noise, but they are whole: text goes in and out, chat templates render, generations end. NumPy writes
them in some milliseconds.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgellm.errors import InvalidArgument
from edgellm.testing.families import Family, sizes, tensor_shapes
from edgellm.testing.gguf_writer import Tensor, quantize_q8_0, write_gguf
from edgellm.testing.table import FAMILIES
from edgellm.testing.vocabulary import bpe_vocabulary, dummy_vocabulary

__all__ = ["ARCHITECTURES", "tiny_model"]

ARCHITECTURES = tuple(sorted(FAMILIES))
"""Every family there is a tiny model of, as general.architecture names it."""

WeightType = Literal["F32", "F16", "BF16", "Q8_0"]
_TYPE_BF16 = 30


def tiny_model(
    arch: str = "llama",
    path: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    n_layer: int = 2,
    weight_type: WeightType = "Q8_0",
    tokenizer: Literal["bytes", "test"] = "bytes",
    metadata: Mapping[str, Any] | None = None,
    **overrides: int,
) -> Path:
    """
    Write a random model of under 3 MB.

    Args:
        arch: A family, one of `ARCHITECTURES`.
        path: Where to; an existing file is replaced. None: a new file in the folder for temporary files, left to you.
        seed: The same arguments with the same seed give the same bytes.
        n_layer: Layers. Families that mix kinds of layers need at least as many as they have kinds.
        weight_type: How matrices are stored; norms, biases and rows that are not whole blocks are F32.
        tokenizer: "bytes" takes any text, with a chat template; "test" has 128 ids and no text.
        metadata: More keys of the file, or other values of them; None removes a key.
        **overrides: Sizes: embd (128), head (4), kv (2), size of a head (32), ff (192), ctx (512), expert (4), used (2)
            and the others in `edgellm.testing.families.sizes`.

    Returns:
        The path.

    Raises:
        InvalidArgument: There is no such family, size, weight type or tokenizer.
    """
    if arch not in FAMILIES:
        raise InvalidArgument(f"no tiny model of {arch!r}; there are: {', '.join(ARCHITECTURES)}")
    if weight_type not in ("F32", "F16", "BF16", "Q8_0"):
        raise InvalidArgument(f"weight_type is {weight_type!r}; it must be one of F32, F16, BF16, Q8_0")
    if tokenizer not in ("bytes", "test"):
        raise InvalidArgument(f"tokenizer is {tokenizer!r}; it must be bytes or test")
    family = FAMILIES[arch]
    vocabulary = bpe_vocabulary() if tokenizer == "bytes" else dummy_vocabulary()
    n_vocab = len(vocabulary["tokenizer.ggml.tokens"])
    for name, value in {"n_layer": n_layer, **overrides}.items():
        if not isinstance(value, int) or value < 1:
            raise InvalidArgument(f"{name} is {value!r}; it must be a whole number of at least 1")
    names = sizes(family, n_vocab, n_layer, {})
    unknown = [name for name in overrides if name not in names]
    if unknown:
        raise InvalidArgument(f"{', '.join(unknown)} is no size; there are: {', '.join(sorted(names))}")
    known = sizes(family, n_vocab, n_layer, overrides)
    keys = _keys(arch, family, known, n_layer) | vocabulary | dict(metadata or {})
    random = np.random.default_rng(seed)
    tensors = {
        name: _stored(name, _random(name, shape, random), weight_type)
        for name, shape in _shapes(family, known, n_layer)
    }
    if path is None:
        handle, name = tempfile.mkstemp(prefix=f"tiny-{arch}-", suffix=".gguf")
        os.close(handle)
        path = name
    return write_gguf(path, {key: value for key, value in keys.items() if value is not None}, tensors)


def _keys(arch: str, family: Family, known: Mapping[str, int], n_layer: int) -> dict[str, Any]:
    """The header without the vocabulary."""
    own: dict[str, Any] = {
        "vocab_size": "$vocab",
        "context_length": "$ctx",
        "embedding_length": "$embd",
        "block_count": n_layer,
        "feed_forward_length": "$ff",
        "attention.head_count": "$head",
        "attention.head_count_kv": "$kv",
        "attention.key_length": "$size",
        "attention.value_length": "$size",
        "rope.dimension_count": "$size",
        "rope.freq_base": 10000.0,
    }
    if family.eps in ("rms", "both"):
        own["attention.layer_norm_rms_epsilon"] = 1e-5
    if family.eps in ("layer", "both"):
        own["attention.layer_norm_epsilon"] = 1e-5
    if family.encoder:
        own |= {"attention.causal": False, "pooling_type": 1}
    own |= family.keys
    values = {
        key if key.startswith("xielu.") else f"{arch}.{key}": _value(value, known, n_layer)
        for key, value in own.items()
    }
    header: dict[str, Any] = {"general.architecture": arch, "general.name": "tiny random model"}
    if "token_types" in family.top:
        header["tokenizer.ggml.token_type_count"] = known["two"]
    return header | values


def _value(value: Any, known: Mapping[str, int], n_layer: int) -> Any:
    """A key's value: "$name" is a size, a list of them goes round the layers; sections of rope stay as they are."""
    if isinstance(value, str) and value.startswith("$"):
        return known[value[1:]]
    if isinstance(value, list) and len(value) < 4:
        return [_value(value[i % len(value)], known, n_layer) for i in range(n_layer)]
    return value


def _shapes(family: Family, known: Mapping[str, int], n_layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, in the file's order."""
    for word in ("token_embd", *family.top.split()):
        yield from tensor_shapes(word, "", known)
    for layer in range(n_layer):
        for word in family.words(layer) if family.layers else ():
            yield from tensor_shapes(word, f"blk.{layer}.", known)
        for prefix, words in family.stacks.items():
            for word in words.split():
                yield from tensor_shapes(word, f"{prefix}{layer}.", known)


def _random(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Weights that keep activations near 1, slowest dimension first."""
    values = random.standard_normal(shape[::-1])
    if "norm" in name and not name.endswith("bias"):
        values = 1 + 0.2 * values
    elif "ssm_a" in name and "alpha" not in name:
        values = -np.exp(0.5 * values)  # a decay
    elif "rope_freqs" in name:
        values = np.exp(0.1 * values)
    elif len(shape) == 1:
        values *= 0.2
    elif not name.startswith("token_embd"):
        values *= 1.5 / np.sqrt(shape[0])
    return values.astype(np.float32)


def _stored(name: str, array: np.ndarray, weight_type: str) -> np.ndarray | Tensor:
    """Matrices as *weight_type*, where a matrix is multiplied and its rows are whole blocks."""
    exact = ("norm", "gate_inp", "conv", "ssm_a", "ssm_d", "lerp", "time_mix_first", "token_types", "altup", "rel_b")
    if array.ndim == 1 or name.endswith("bias") or weight_type == "F32" or any(part in name for part in exact):
        return array
    if weight_type == "F16":
        return array.astype(np.float16)
    if weight_type == "BF16":
        return Tensor(array.shape, _TYPE_BF16, (array.view(np.uint32) >> 16).astype("<u2").tobytes())
    return quantize_q8_0(array) if array.shape[-1] % 32 == 0 else array
