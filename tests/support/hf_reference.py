"""
The forward pass of a Hugging Face folder in NumPy, by Hugging Face's own conventions: what a converted file must say.

Independent of GGUF: rotary halves instead of pairs, Gemma's norms stored minus 1, Phi-3's fused matrices. float64.

Sources: the published model code in transformers (llama, qwen2, qwen3, gemma, gemma2, gemma3, phi3, smollm3) and its
rope utilities.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.bert_reference import read_safetensors
from tests.support.hf_folder import GEMMAS
from tests.support.reference import attention, gelu, rms_norm, silu, softmax

Array = NDArray[np.float64]


class HfReference:
    """A folder's model."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self.tensors: dict[str, Array] = {}
        for file in sorted(folder.glob("*.safetensors")):
            self.tensors |= {name: t.astype(np.float64) for name, t in read_safetensors(file).items()}
        self.kind = self.config["architectures"][0]
        self.gemma = self.kind in GEMMAS
        self.n_heads, self.n_heads_kv = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        self.size = self.config.get("head_dim", self.config["hidden_size"] // self.n_heads)

    def norm(self, x: Array, name: str) -> Array:
        weight = self.tensors[f"{name}.weight"] + (1 if self.gemma else 0)
        return rms_norm(x, weight, self.config["rms_norm_eps"])

    def linear(self, x: Array, name: str) -> Array:
        y: Array = x @ self.tensors[f"{name}.weight"].T
        return y + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else y

    def slides(self, layer: int) -> bool:
        if self.kind == "Gemma2ForCausalLM":
            return layer % 2 == 0
        if self.kind == "Gemma3ForCausalLM":
            return bool((layer + 1) % self.config["sliding_window_pattern"])
        return False

    def angles(self, layer: int, n_tokens: int) -> tuple[Array, float]:
        """Angles of shape (n_tokens, size / 2) and the factor on cosine and sine."""
        base = self.config["rope_theta"]
        if self.kind == "Gemma3ForCausalLM" and self.slides(layer):
            base = self.config["rope_local_base_freq"]
        frequencies = base ** (-np.arange(0, self.size, 2) / self.size)
        scaling: Mapping[str, Any] = self.config.get("rope_scaling") or {}
        factor = 1.0
        if scaling.get("rope_type") == "llama3":
            frequencies = llama3(frequencies, scaling)
        elif scaling.get("rope_type") == "linear":
            frequencies = frequencies / scaling["factor"]
        elif scaling.get("rope_type") == "longrope":
            original = self.config["original_max_position_embeddings"]
            scale = self.config["max_position_embeddings"] / original
            factor = math.sqrt(1 + math.log(scale) / math.log(original))
            frequencies = frequencies / np.asarray(scaling["short_factor"])
        return np.arange(n_tokens)[:, None] * frequencies, factor

    def rope(self, x: Array, layer: int) -> Array:
        if self.kind == "SmolLM3ForCausalLM" and not self.config["no_rope_layers"][layer]:
            return x
        angle, factor = self.angles(layer, len(x))
        cos, sin = factor * np.cos(angle)[:, None], factor * np.sin(angle)[:, None]
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def attend(self, x: Array, layer: int) -> Array:
        name = f"model.layers.{layer}.self_attn"
        if self.kind == "Phi3ForCausalLM":
            n_q, n_kv = self.n_heads * self.size, self.n_heads_kv * self.size
            q, k, v = np.split(self.linear(x, f"{name}.qkv_proj"), [n_q, n_q + n_kv], axis=-1)
        else:
            q, k, v = (self.linear(x, f"{name}.{part}_proj") for part in "qkv")
        q, k, v = (part.reshape(len(x), -1, self.size) for part in (q, k, v))
        if f"{name}.q_norm.weight" in self.tensors:
            q, k = self.norm(q, f"{name}.q_norm"), self.norm(k, f"{name}.k_norm")
        q, k = self.rope(q, layer), self.rope(k, layer)
        window = self.config["sliding_window"] if self.slides(layer) else 0
        scale = self.size**-0.5
        cap = self.config.get("attn_logit_softcapping")
        out = capped_attention(q, k, v, scale, window, cap) if cap else attention(q, k, v, scale, window)
        return self.linear(out, f"{name}.o_proj")

    def feed_forward(self, x: Array, layer: int) -> Array:
        name = f"model.layers.{layer}.mlp"
        if self.kind == "Phi3ForCausalLM":
            gate, up = np.split(self.linear(x, f"{name}.gate_up_proj"), 2, axis=-1)
        else:
            gate, up = self.linear(x, f"{name}.gate_proj"), self.linear(x, f"{name}.up_proj")
        return self.linear((gelu(gate) if self.gemma else silu(gate)) * up, f"{name}.down_proj")

    def logits(self, tokens: Sequence[int]) -> Array:
        """Scores after each token; shape (n_tokens, n_vocab)."""
        embedding = self.tensors["model.embed_tokens.weight"]
        x = embedding[np.asarray(tokens)]
        if self.gemma:
            x = x * math.sqrt(self.config["hidden_size"])
        sandwich = self.kind in GEMMAS[1:]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            y = self.attend(self.norm(x, f"{name}.input_layernorm"), layer)
            x = x + (self.norm(y, f"{name}.post_attention_layernorm") if sandwich else y)
            before = "pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"
            y = self.feed_forward(self.norm(x, f"{name}.{before}"), layer)
            x = x + (self.norm(y, f"{name}.post_feedforward_layernorm") if sandwich else y)
        scores: Array = self.norm(x, "model.norm") @ self.tensors.get("lm_head.weight", embedding).T
        cap = self.config.get("final_logit_softcapping")
        return cap * np.tanh(scores / cap) if cap else scores


def llama3(frequencies: Array, scaling: Mapping[str, Any]) -> Array:
    """Llama 3.1's scaling, as Meta published it."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    out = []
    for frequency in frequencies:
        wavelength = 2 * math.pi / frequency
        if wavelength < context / high:
            out.append(frequency)
        elif wavelength > context / low:
            out.append(frequency / factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            out.append((1 - smooth) * frequency / factor + smooth * frequency)
    return np.asarray(out)


def capped_attention(q: Array, k: Array, v: Array, scale: float, window: int, cap: float) -> Array:
    """As reference.attention, with scores squeezed into +-cap."""
    distance = np.arange(len(q))[:, None] - np.arange(len(q))[None, :]
    visible = (distance >= 0) & ((window == 0) | (distance < window))
    groups = q.shape[1] // k.shape[1]
    heads = []
    for head in range(q.shape[1]):
        scores = cap * np.tanh(q[:, head] @ k[:, head // groups].T * scale / cap)
        heads.append(softmax(np.where(visible, scores, -np.inf)) @ v[:, head // groups])
    return np.concatenate(heads, axis=-1)
