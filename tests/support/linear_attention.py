"""
Linear attention in NumPy: the gated delta rule (Qwen3.5, Qwen3-Next), attention with a gate beside it, and RWKV 7.

Sources: Yang, Kautz and Hatamizadeh 2024 (Gated Delta Networks), equation 10; Peng et al. 2025 (RWKV-7 "Goose"),
section 4. What the keys and tensors of files mean follows llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tests.support.recurrent import convolution

if TYPE_CHECKING:
    from tests.support.reference import Reference

Array = NDArray[np.float64]
ARCHITECTURES = ("qwen35", "qwen3next", "rwkv7")


# ---- tiny models ----------------------------------------------------------------------------


def keys(arch: str) -> dict[str, Any]:
    """Metadata beside a transformer's. Every other Qwen layer is attention, of whose heads half rotates."""
    if arch == "rwkv7":
        return {"wkv.head_size": 16, "attention.layer_norm_epsilon": 1e-5}
    sizes = {"conv_kernel": 4, "state_size": 16, "group_count": 2, "time_step_rank": 4, "inner_size": 64}
    keys = {f"ssm.{name}": value for name, value in sizes.items()}
    if arch == "qwen3next":
        keys |= {"expert_count": 3, "expert_used_count": 3}  # all, whatever is rounded
    return keys | {"full_attention_interval": 2, "rope.dimension_count": 16}


def vector(random: np.random.Generator, *shape: int, mean: float = 0.0, spread: float = 0.3) -> np.ndarray:
    return (mean + spread * random.standard_normal(shape)).astype(np.float32)


def attends(key: Mapping[str, Any], layer: int) -> bool:
    return (layer + 1) % int(key["full_attention_interval"]) == 0


def delta_tensors(
    name: str, key: Mapping[str, Any], random: np.random.Generator, matrix: Callable[..., np.ndarray], mixed: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """One layer of the delta rule. mixed: projections as Qwen3-Next's first files have them."""
    n_embd, inner, n_head = key["embedding_length"], key["ssm.inner_size"], key["ssm.time_step_rank"]
    channels = inner + 2 * key["ssm.group_count"] * key["ssm.state_size"]
    if mixed:
        yield f"{name}.ssm_in.weight", matrix(channels + inner, n_embd)
        yield f"{name}.ssm_ba.weight", matrix(2 * n_head, n_embd)
    else:
        yield f"{name}.attn_qkv.weight", matrix(channels, n_embd)
        yield f"{name}.attn_gate.weight", matrix(inner, n_embd)
        yield f"{name}.ssm_beta.weight", matrix(n_head, n_embd)
        yield f"{name}.ssm_alpha.weight", matrix(n_head, n_embd)
    yield f"{name}.ssm_conv1d.weight", vector(random, channels, key["ssm.conv_kernel"], spread=0.6)
    yield f"{name}.ssm_dt.bias", vector(random, n_head, mean=-1)
    yield f"{name}.ssm_a", -np.exp(vector(random, n_head, spread=1.0))
    yield f"{name}.ssm_norm.weight", vector(random, key["ssm.state_size"], mean=1, spread=0.2)
    yield f"{name}.ssm_out.weight", matrix(n_embd, inner)


def rwkv7_tensors(
    key: Mapping[str, Any], random: np.random.Generator, matrix: Callable[..., np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """A whole model but token_embd and output."""
    n_embd, n_ff, ranks = key["embedding_length"], key["feed_forward_length"], {"w": 32, "a": 32, "v": 32, "g": 64}

    def norm(name: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{name}.weight", vector(random, n_embd, mean=1, spread=0.2)
        yield f"{name}.bias", vector(random, n_embd, spread=0.2)

    yield from norm("token_embd_norm")
    yield from norm("output_norm")
    for layer in range(key["block_count"]):
        time, channel = f"blk.{layer}.time_mix", f"blk.{layer}.channel_mix"
        for part in (f"blk.{layer}.attn_norm", f"blk.{layer}.attn_norm_2", f"{time}_ln"):
            yield from norm(part)
        for letter, rank in ranks.items():
            yield f"{time}_{letter}1.weight", matrix(rank, n_embd)
            yield f"{time}_{letter}2.weight", matrix(n_embd, rank)
            if letter != "g":
                yield f"{time}_{letter}0.weight", vector(random, n_embd)
        yield f"{time}_lerp_fused.weight", vector(random, 6, 1, 1, n_embd, mean=0.5)
        for part in ("k_k", "k_a", "r_k"):
            yield f"{time}_{part}.weight", vector(random, n_embd, mean=0.7)
        for part in ("receptance", "key", "value", "output"):
            yield f"{time}_{part}.weight", matrix(n_embd, n_embd)
        yield f"{channel}_lerp_k.weight", vector(random, n_embd, mean=0.5)
        yield f"{channel}_key.weight", matrix(n_ff, n_embd)
        yield f"{channel}_value.weight", matrix(n_embd, n_ff)


# ---- Qwen -----------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def unit(x: Array, eps: float) -> Array:
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps)


def delta_rule(q: Array, k: Array, v: Array, decay: Array, step: Array) -> Array:
    """*q*, *k* and *v* of shape (n_tokens, n_heads, head), *decay* and *step* of (n_tokens, n_heads)."""
    state = np.zeros((q.shape[1], q.shape[2], v.shape[2]))
    y = np.empty_like(v)
    for t in range(len(q)):
        state *= decay[t][:, None, None]
        new = step[t][:, None] * (v[t] - np.einsum("hkv,hk->hv", state, k[t]))
        state += k[t][:, :, None] * new[:, None, :]
        y[t] = np.einsum("hkv,hk->hv", state, q[t]) / np.sqrt(q.shape[2])
    return y


def delta(model: Reference, x: Array, name: str) -> Array:
    """One layer's mixer on its normed input, shape (n_tokens, n_embd)."""
    from tests.support.reference import rms_norm, silu

    groups, n_head, head = (int(model.key(f"ssm.{key}")) for key in ("group_count", "time_step_rank", "state_size"))
    shared, n = n_head // groups, len(x)
    if f"{name}.ssm_in.weight" in model.tensors:  # a key head, then the value heads that use it
        mixed = model.linear(x, f"{name}.ssm_in").reshape(n, groups, -1)
        q, k, v, z = np.split(mixed, np.cumsum([head, head, shared * head]), axis=2)
        qkv = np.hstack([part.reshape(n, -1) for part in (q, k, v)])
        beta, alpha = np.split(model.linear(x, f"{name}.ssm_ba").reshape(n, groups, -1), 2, axis=2)
        order = np.arange(n_head) // shared
    else:
        qkv, z = model.linear(x, f"{name}.attn_qkv"), model.linear(x, f"{name}.attn_gate")
        beta, alpha = model.linear(x, f"{name}.ssm_beta"), model.linear(x, f"{name}.ssm_alpha")
        order = np.arange(n_head) % groups
    qkv = silu(convolution(qkv, model.tensors[f"{name}.ssm_conv1d.weight"])).reshape(n, -1, head)
    q, k = (unit(part, model.eps)[:, order] for part in (qkv[:, :groups], qkv[:, groups : 2 * groups]))
    softplus = np.logaddexp(0, alpha.reshape(n, n_head) + model.tensors[f"{name}.ssm_dt.bias"])
    decay = np.exp(model.tensors[f"{name}.ssm_a"] * softplus)
    y = delta_rule(q, k, qkv[:, 2 * groups :], decay, sigmoid(beta.reshape(n, n_head)))
    y = rms_norm(y, model.tensors[f"{name}.ssm_norm.weight"], model.eps).reshape(n, -1)
    return model.linear(y * silu(z.reshape(n, -1)), f"{name}.ssm_out")


# ---- RWKV 7 ---------------------------------------------------------------------------------


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + eps) * weight + bias


def rwkv7(model: Reference, tokens: Sequence[int]) -> Array:
    """Logits of a whole model."""
    tensor, eps, head = model.tensors, float(model.key("attention.layer_norm_epsilon")), int(model.key("wkv.head_size"))
    first: Array | None = None

    def norm(x: Array, name: str) -> Array:
        return layer_norm(x, tensor[f"{name}.weight"], tensor[f"{name}.bias"], eps)

    def difference(x: Array) -> Array:
        return np.vstack([np.zeros_like(x[:1]), x[:-1]]) - x

    x = norm(tensor["token_embd.weight"][np.asarray(tokens)], "token_embd_norm")
    for layer in range(model.n_layer):
        y, first = rwkv7_time_mix(model, norm(x, f"blk.{layer}.attn_norm"), f"blk.{layer}.time_mix", first, head)
        x = x + y
        name = f"blk.{layer}.channel_mix"
        y = norm(x, f"blk.{layer}.attn_norm_2")
        y = model.linear(y + difference(y) * tensor[f"{name}_lerp_k.weight"], f"{name}_key")
        x = x + model.linear(np.maximum(y, 0) ** 2, f"{name}_value")
    return model.linear(norm(x, "output_norm"), "output" if "output.weight" in tensor else "token_embd")


def rwkv7_time_mix(model: Reference, x: Array, name: str, first: Array | None, head: int) -> tuple[Array, Array]:
    """The mixer's result, and the values that later layers mix in."""
    tensor, n = model.tensors, len(x)
    before = np.vstack([np.zeros_like(x[:1]), x[:-1]])
    xr, xw, xk, xv, xa, xg = (x + (before - x) * mix for mix in tensor[f"{name}_lerp_fused.weight"].reshape(6, -1))

    def low_rank(y: Array, letter: str, act: Callable[[Array], Array] = lambda y: y) -> Array:
        y = model.linear(act(model.linear(y, f"{name}_{letter}1")), f"{name}_{letter}2")
        return y + tensor.get(f"{name}_{letter}0.weight", 0)

    r, k, v = (model.linear(y, f"{name}_{p}") for y, p in ((xr, "receptance"), (xk, "key"), (xv, "value")))
    decay, rate = np.exp(-np.exp(-0.5) * sigmoid(low_rank(xw, "w", np.tanh))), sigmoid(low_rank(xa, "a"))
    if first is None:
        first = v
    else:
        v = v + (first - v) * sigmoid(low_rank(xv, "v"))
    erased = unit((k * tensor[f"{name}_k_k.weight"]).reshape(n, -1, head), 0)
    k = k * (1 + (rate - 1) * tensor[f"{name}_k_a.weight"])
    r_, w, k_, v_, a = (y.reshape(n, -1, head) for y in (r, decay, k, v, rate))
    state, y = np.zeros((r_.shape[1], head, head)), np.empty_like(r_)
    for t in range(n):
        held = np.einsum("hvk,hk->hv", state, erased[t])
        state = state * w[t][:, None, :] - held[:, :, None] * (erased[t] * a[t])[:, None, :]
        state += v_[t][:, :, None] * k_[t][:, None, :]
        y[t] = np.einsum("hvk,hk->hv", state, r_[t])
    y = layer_norm(y, 1, 0, 64e-5).reshape(n, -1) * tensor[f"{name}_ln.weight"] + tensor[f"{name}_ln.bias"]
    bonus = (r * k * tensor[f"{name}_r_k.weight"]).reshape(n, -1, head).sum(axis=2, keepdims=True)
    y = y + (v_ * bonus).reshape(n, -1)
    return model.linear(y * low_rank(xg, "g", sigmoid), f"{name}_output"), first
