"""
Layers that remember a sequence in a state of fixed size, in NumPy: Mamba 2 and LFM2's short convolution.

Sources: Dao and Gu 2024 (Mamba 2), section 7; Liquid AI 2025 (LFM2), section 2. What the keys and tensors of files mean
follows llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.support.reference import Reference

Array = NDArray[np.float64]
ARCHITECTURES = ("mamba2", "lfm2")


# ---- tiny models ----------------------------------------------------------------------------


def keys(arch: str, n_layer: int, n_embd: int, n_head_kv: int) -> dict[str, Any]:
    """Metadata beside a transformer's; ``None`` removes a key. Every other layer of LFM2 is a convolution."""
    if arch == "mamba2":
        sizes = {"conv_kernel": 4, "inner_size": 2 * n_embd, "state_size": 24, "time_step_rank": 4, "group_count": 2}
        return {f"ssm.{name}": value for name, value in sizes.items()} | {"feed_forward_length": None}
    return {
        "shortconv.l_cache": 3,
        "attention.head_count_kv": [0 if layer % 2 == 0 else n_head_kv for layer in range(n_layer)],
    }


def tensors(
    name: str, key: Mapping[str, Any], random: np.random.Generator, matrix: Callable[..., np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Random weights of one such layer."""
    n_embd = key["embedding_length"]

    def vector(*shape: int, mean: float = 0.0, spread: float = 0.3) -> np.ndarray:
        return (mean + spread * random.standard_normal(shape)).astype(np.float32)

    if "shortconv.l_cache" in key:
        yield f"{name}.shortconv.in_proj.weight", matrix(3 * n_embd, n_embd)
        yield f"{name}.shortconv.conv.weight", vector(n_embd, key["shortconv.l_cache"], spread=0.6)
        yield f"{name}.shortconv.out_proj.weight", matrix(n_embd, n_embd)
        return
    inner, n_head, groups = key["ssm.inner_size"], key["ssm.time_step_rank"], key["ssm.group_count"]
    channels = inner + 2 * groups * key["ssm.state_size"]
    yield f"{name}.ssm_in.weight", matrix(inner + channels + n_head, n_embd)
    yield f"{name}.ssm_conv1d.weight", vector(channels, key["ssm.conv_kernel"], spread=0.6)
    yield f"{name}.ssm_conv1d.bias", vector(channels)
    yield f"{name}.ssm_dt.bias", vector(n_head, mean=-1)
    yield f"{name}.ssm_a", -np.exp(vector(n_head, 1, spread=1.0))
    yield f"{name}.ssm_d", vector(n_head, 1, mean=1)
    yield f"{name}.ssm_norm.weight", vector(groups, inner // groups, mean=1, spread=0.2)
    yield f"{name}.ssm_out.weight", matrix(n_embd, inner)


# ---- forward pass ---------------------------------------------------------------------------


def convolution(x: Array, weight: Array) -> Array:
    """Each channel of *x* (n_tokens, channels) with a row of *weight* (channels, taps): the last tap is the present."""
    taps = weight.shape[1]
    padded = np.vstack([np.zeros((taps - 1, x.shape[1])), x])
    return sum(padded[k : k + len(x)] * weight[:, k] for k in range(taps))


def scan(x: Array, dt: Array, a: Array, b: Array, c: Array) -> Array:
    """
    Mamba 2's recurrence.

    Args:
        x: Shape (n_tokens, n_heads, head).
        dt: Shape (n_tokens, n_heads), positive.
        a: Shape (n_heads,), negative.
        b: Shape (n_tokens, n_heads, d_state); *c* likewise.
    """
    state = np.zeros((x.shape[1], x.shape[2], b.shape[2]))
    y = np.empty_like(x)
    for t in range(len(x)):
        state *= np.exp(dt[t] * a)[:, None, None]
        state += (dt[t][:, None] * x[t])[:, :, None] * b[t][:, None, :]
        y[t] = np.einsum("hpn,hn->hp", state, c[t])
    return y


def mamba2(model: Reference, x: Array, name: str) -> Array:
    """One layer's mixer on its normed input, shape (n_tokens, n_embd)."""
    from tests.support.reference import rms_norm, silu

    weights = {
        part: model.tensors[f"{name}.ssm_{part}"] for part in ("a", "d", "dt.bias", "conv1d.weight", "norm.weight")
    }
    inner, n_state, n_head, groups = (
        int(model.key(f"ssm.{key}")) for key in ("inner_size", "state_size", "time_step_rank", "group_count")
    )
    z, mixed, dt = np.split(model.linear(x, f"{name}.ssm_in"), [inner, 2 * inner + 2 * groups * n_state], axis=1)
    mixed = silu(convolution(mixed, weights["conv1d.weight"]) + model.tensors[f"{name}.ssm_conv1d.bias"])
    heads, b, c = np.split(mixed, [inner, inner + groups * n_state], axis=1)
    heads = heads.reshape(len(x), n_head, -1)
    b, c = (np.repeat(part.reshape(len(x), groups, n_state), n_head // groups, axis=1) for part in (b, c))
    y = scan(heads, np.logaddexp(0, dt + weights["dt.bias"]), weights["a"][:, 0], b, c) + weights["d"] * heads
    y = (y.reshape(len(x), inner) * silu(z)).reshape(len(x), groups, -1)
    return model.linear(rms_norm(y, weights["norm.weight"], model.eps).reshape(len(x), inner), f"{name}.ssm_out")


def short_convolution(model: Reference, x: Array, name: str) -> Array:
    """LFM2's mixer."""
    before, after, inside = np.split(model.linear(x, f"{name}.shortconv.in_proj"), 3, axis=1)
    y = after * convolution(before * inside, model.tensors[f"{name}.shortconv.conv.weight"])
    return model.linear(y, f"{name}.shortconv.out_proj")
