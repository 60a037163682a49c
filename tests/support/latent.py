"""
Latent attention and DeepSeek's experts in NumPy.

Whole keys and values are made of each position's latent, whatever form a file has: so the library's absorbed form is
compared with what it stands for. Sources: DeepSeek-AI 2024 (DeepSeek-V2), section 2.1; (DeepSeek-V3), section 2.1.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.support.reference import Reference

Array = NDArray[np.float64]


def latent_attention(model: Reference, x: Array, layer: int, positions: Array) -> Array:
    """One layer's attention on its normed input, shape (n_tokens, n_embd)."""
    from tests.support.reference import attention

    name, n_tokens = f"blk.{layer}", len(x)
    n_heads, rank = int(model.key("attention.head_count")), int(model.key("attention.kv_lora_rank"))
    size = int(model.key("attention.key_length_mla", model.key("attention.key_length")))
    q = model.norm(model.linear(x, f"{name}.attn_q_a"), f"{name}.attn_q_a_norm")
    q = model.linear(q, f"{name}.attn_q_b").reshape(n_tokens, n_heads, size)
    kv = model.linear(x, f"{name}.attn_kv_a_mqa")
    latent, rotated = model.norm(kv[:, :rank], f"{name}.attn_kv_a_norm"), kv[:, None, rank:]
    nope = size - rotated.shape[2]
    if f"{name}.attn_k_b.weight" in model.tensors:
        k = np.einsum("tr,hrn->thn", latent, model.tensors[f"{name}.attn_k_b.weight"])
        v = np.einsum("tr,hvr->thv", latent, model.tensors[f"{name}.attn_v_b.weight"])
    else:
        k, v = np.split(model.linear(latent, f"{name}.attn_kv_b").reshape(n_tokens, n_heads, -1), [nope], axis=2)
    rope = model.rope(layer, size)
    rotated = np.repeat(rope(rotated, positions), n_heads, axis=1)
    q = np.concatenate([q[..., :nope], rope(q[..., nope:], positions)], axis=2)
    y = attention(q, np.concatenate([k, rotated], axis=2), v, 1 / np.sqrt(size))
    return model.linear(y, f"{name}.attn_output")


def route(model: Reference, logits: Array, bias: Array) -> Array:
    """Weights of the experts, zero for those not chosen: the best of the best groups, by sigmoid plus *bias*."""
    gates = 1 / (1 + np.exp(-logits))
    ranked = gates + bias
    if groups := int(model.key("expert_group_count", 0)):
        split = ranked.reshape(len(logits), groups, -1)
        best = np.argsort(-np.sort(split, axis=2)[:, :, -2:].sum(axis=2), axis=1)[
            :, : int(model.key("expert_group_used_count"))
        ]
        kept = np.full_like(split, -np.inf)
        np.put_along_axis(kept, best[:, :, None], np.take_along_axis(split, best[:, :, None], axis=1), axis=1)
        ranked = kept.reshape(ranked.shape)
    chosen = np.argsort(-ranked, axis=1, kind="stable")[:, : int(model.key("expert_used_count"))]
    weights = np.zeros_like(gates)
    np.put_along_axis(weights, chosen, np.take_along_axis(gates, chosen, axis=1), axis=1)
    if model.key("expert_weights_norm", False):
        weights /= weights.sum(axis=1, keepdims=True)
    return weights * float(model.key("expert_weights_scale", 1.0))


def experts(model: Reference, x: Array, name: str) -> Array:
    """Chosen experts and those that every row uses."""
    from tests.support.reference import silu

    weights = route(model, model.linear(x, f"{name}.ffn_gate_inp"), model.tensors[f"{name}.exp_probs_b.bias"])
    gate, up, down = (model.tensors[f"{name}.ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
    hidden = silu(model.linear(x, f"{name}.ffn_gate_shexp")) * model.linear(x, f"{name}.ffn_up_shexp")
    y = model.linear(hidden, f"{name}.ffn_down_shexp")
    for expert, weight in enumerate(weights.T):
        y = y + weight[:, None] * ((silu(x @ gate[expert].T) * (x @ up[expert].T)) @ down[expert].T)
    return y
