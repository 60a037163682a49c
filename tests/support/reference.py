"""
A slow, readable forward pass in NumPy: what the logits of a model file ought to be.

One function per idea, float64 throughout, a whole prompt at once, no cache: so chunks, batches and threads, where a
fast engine goes wrong, do not exist here. Architectures: ``llama`` (dense and mixture of experts), ``mistral3``,
``gemma3``; with tests.support.recurrent ``mamba2`` and ``lfm2``; with tests.support.linear_attention ``qwen35``,
``qwen3next`` and ``rwkv7``; with tests.support.latent ``deepseek2``.

Sources: RMSNorm, Zhang and Sennrich 2019; rotary positions, Su et al. 2021; YaRN, Peng et al. 2023; grouped queries,
Ainslie et al. 2023; SwiGLU and GEGLU, Shazeer 2020; experts, Jiang et al. 2024 (Mixtral); sliding windows and
query-key norms, the Gemma 3 report, 2025. What the metadata keys mean follows llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import latent, linear_attention, recurrent
from tests.support.gguf_reader import read_gguf

Array = NDArray[np.float64]


# ---- parts ----------------------------------------------------------------------------------


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Each row of *x* divided by its root mean square, times *weight*."""
    scaled: Array = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight
    return scaled


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result


def silu(x: Array) -> Array:
    """x times the logistic function of x, written so that exp never overflows."""
    return 0.5 * x * (1 + np.tanh(0.5 * x))


def gelu(x: Array) -> Array:
    """The tanh approximation, Hendrycks and Gimpel 2016, section 2."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * x * (1 + 0.044715 * x * x)))


def gelu_f16(x: Array) -> Array:
    """
    The same, as ggml's CPU backend has it: from a table over f16.

    Beyond +-10 it is x or 0; between, argument and result are rounded to f16, about 3 digits.
    """
    near = np.clip(x, -10, 10).astype(np.float16)
    rounded = gelu(near.astype(np.float64)).astype(np.float16).astype(np.float64)
    return np.where(x <= -10, 0.0, np.where(x >= 10, x, rounded))


@dataclass(frozen=True)
class Rope:
    """
    Rotary positions of one layer.

    Args:
        n_dims: How many elements of a head turn; the rest stay.
        base: Angle of pair i per position: base ** (-2i / n_dims).
        scale: Factor on positions, 1 / rope.scaling.factor.
        factors: Divisors of the angles, one per pair, may be negative; None: all 1.
        yarn: Mix scaled and unscaled angles by wavelength, and stretch the result.
        n_ctx_orig: Context the model was trained with, where YaRN's ramp is anchored.
        attn_factor: Factor on the turned vectors.
        halves: Which elements pair up (see Family).
        like_ggml: Angles in float32, each pair's from the one before. Small *factors* make angles so large that the
            difference shows (NMSE of 2e-7 on the llama fixtures, whose smallest factor is 0.0025).
    """

    n_dims: int
    base: float
    scale: float = 1.0
    factors: Array | None = None
    yarn: bool = False
    n_ctx_orig: int = 0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    halves: bool = False
    like_ggml: bool = False

    def _turns(self, positions: Array) -> Array:
        """Angles before scaling, shape (n_positions, n_dims / 2)."""
        pairs = np.arange(self.n_dims // 2)
        factors = np.ones(len(pairs)) if self.factors is None else self.factors
        if not self.like_ggml:
            exact: Array = positions[:, None] * np.power(self.base, -2.0 * pairs / self.n_dims) / factors
            return exact
        step = np.power(np.float32(self.base), np.float32(-2.0 / self.n_dims))
        steps = np.full((len(positions), len(pairs)), step, np.float32)
        steps[:, 0] = positions
        single: Array = (np.cumprod(steps, axis=1) / factors.astype(np.float32)).astype(np.float64)
        return single

    def angles(self, positions: Array) -> tuple[Array, float]:
        """Angles of shape (n_positions, n_dims / 2), and the factor on the vectors."""
        angle = self._turns(positions)
        if not self.yarn:
            return angle * self.scale, self.attn_factor
        keep = self._yarn_ramp(np.arange(self.n_dims // 2))
        mixed = angle * self.scale * (1 - keep) + angle * keep
        return mixed, self.attn_factor * float(1 + 0.1 * np.log(1 / self.scale))

    def _yarn_ramp(self, pairs: NDArray[np.int64]) -> Array:
        """1 for pairs that turn often within the trained context (left alone), 0 for those that turn less than once."""

        def pair_that_turns(times: float) -> float:
            return float(self.n_dims * np.log(self.n_ctx_orig / (times * 2 * np.pi)) / (2 * np.log(self.base)))

        low = max(0.0, np.floor(pair_that_turns(self.beta_fast)))
        high = min(self.n_dims - 1.0, np.ceil(pair_that_turns(self.beta_slow)))
        return 1 - np.clip((pairs - low) / max(0.001, high - low), 0, 1)

    def __call__(self, x: Array, positions: Array) -> Array:
        """Turn *x* of shape (n_tokens, n_heads, n_head)."""
        angle, factor = self.angles(positions)
        cos, sin = factor * np.cos(angle)[:, None], factor * np.sin(angle)[:, None]
        half = self.n_dims // 2
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        if self.halves:
            first, second = slice(0, half), slice(half, 2 * half)
        turned = x.copy()
        turned[..., first] = x[..., first] * cos - x[..., second] * sin
        turned[..., second] = x[..., first] * sin + x[..., second] * cos
        return turned


def attention(q: Array, k: Array, v: Array, scale: float, window: int = 0) -> Array:
    """
    Causal attention with grouped heads.

    Args:
        q: Shape (n_tokens, n_heads, n_head).
        k: Shape (n_tokens, n_heads_kv, n_head); head i of q uses head i // (n_heads / n_heads_kv).
        v: Likewise.
        window: A token sees itself and the *window* - 1 before it; 0: all before it.

    Returns:
        Shape (n_tokens, n_heads * n_head of v).
    """
    n_tokens, n_heads, _ = q.shape
    distance = np.arange(n_tokens)[:, None] - np.arange(n_tokens)[None, :]
    visible = (distance >= 0) & ((window == 0) | (distance < window))
    out = np.empty((n_tokens, n_heads, v.shape[2]))
    for head in range(n_heads):
        group = head // (n_heads // k.shape[1])
        scores = np.where(visible, q[:, head] @ k[:, group].T * scale, -np.inf)
        out[:, head] = softmax(scores) @ v[:, group]
    return out.reshape(n_tokens, -1)


def route(probabilities: Array, n_used: int) -> Array:
    """
    Weights of the experts, shape (n_tokens, n_expert), zero for those not used.

    Softmax over all experts comes first, then the best *n_used* are kept and divided by their sum (not below the
    smallest normal f16 number, 2**-14).
    """
    chosen = np.argsort(-probabilities, axis=-1, kind="stable")[:, :n_used]
    weights = np.zeros_like(probabilities)
    kept = np.take_along_axis(probabilities, chosen, axis=-1)
    np.put_along_axis(weights, chosen, kept / np.maximum(kept.sum(axis=-1, keepdims=True), 2.0**-14), axis=-1)
    return weights


@dataclass(frozen=True)
class Family:
    """What makes an architecture differ from plain llama."""

    halves: bool = False  # rotary pairs are (i, i + n/2) instead of (2i, 2i + 1)
    gate: Callable[[Array], Array] = silu
    scale_embedding: bool = False  # by sqrt(n_embd)
    qk_norm: bool = False
    post_norms: bool = False
    window: bool = False  # reads attention.sliding_window and its pattern
    rope_factors: bool = True  # reads rope_freqs.weight
    temperature: bool = False  # reads attention.temperature_scale and the yarn_* keys
    softcap: bool = False
    experts: bool = True
    ffn_norm: str = "ffn_norm"
    gated: bool = False  # attn_q holds a gate of each head's result after its query
    output_norm: str = "output_norm"


ARCHITECTURES = {
    "llama": Family(),
    "mistral3": Family(temperature=True),
    "gemma3": Family(
        halves=True,
        gate=gelu,
        scale_embedding=True,
        qk_norm=True,
        post_norms=True,
        window=True,
        rope_factors=False,
        softcap=True,
        experts=False,
    ),
    "qwen35": Family(halves=True, qk_norm=True, ffn_norm="post_attention_norm", gated=True),
    "qwen3next": Family(halves=True, qk_norm=True, ffn_norm="post_attention_norm", gated=True),
    "rwkv7": Family(),
    "mamba2": Family(),
    "deepseek2": Family(),
    "lfm2": Family(halves=True, qk_norm=True, output_norm="token_embd_norm"),
}


# ---- the model ------------------------------------------------------------------------------


class Reference:
    """
    The forward pass of one file.

    Args:
        metadata: Keys and plain values of the file.
        tensors: Float arrays by name, shape slowest first.
        like_ggml: Round where ggml's CPU backend rounds noticeably: GELU by an f16 table, rotary angles in float32.
    """

    def __init__(
        self, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray], *, like_ggml: bool = False
    ) -> None:
        self.arch = str(metadata["general.architecture"])
        self.family = ARCHITECTURES[self.arch]
        self.metadata = metadata
        self.tensors = {name: np.asarray(t, np.float64) for name, t in tensors.items()}
        self.like_ggml = like_ggml
        self.gate = gelu_f16 if like_ggml and self.family.gate is gelu else self.family.gate
        self.n_layer = int(self.key("block_count"))
        self.n_embd = int(self.key("embedding_length"))
        self.eps = float(self.key("attention.layer_norm_rms_epsilon"))

    @classmethod
    def from_file(cls, path: str | PathLike[str], *, like_ggml: bool = False) -> Reference:
        return cls(*read_gguf(path), like_ggml=like_ggml)

    def key(self, name: str, default: Any = None) -> Any:
        """A key of the architecture; 0 means absent."""
        value = self.metadata.get(f"{self.arch}.{name}")
        if value is None or (not isinstance(value, (str, list)) and value == 0):
            if default is None:
                raise KeyError(f"{self.arch}.{name}")
            return default
        return value

    def per_layer(self, name: str, layer: int, default: Any) -> int:
        value = self.key(name, default)
        return int(value[layer] if isinstance(value, list) else value)

    def linear(self, x: Array, name: str) -> Array:
        """``x W^T``, plus the bias wherever the file has one."""
        y: Array = x @ self.tensors[f"{name}.weight"].T
        return y + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else y

    def norm(self, x: Array, name: str) -> Array:
        return rms_norm(x, self.tensors[f"{name}.weight"], self.eps)

    # -- which layer does what

    def window(self, layer: int) -> int:
        """Tokens a layer of the sliding window kind sees, 0 for the others."""
        if not self.family.window or not self.key("attention.sliding_window", 0):
            return 0
        pattern = self.key("attention.sliding_window_pattern", 6)
        slides = bool(pattern[layer]) if isinstance(pattern, list) else layer % pattern < pattern - 1
        return int(self.key("attention.sliding_window")) if slides else 0

    def rope(self, layer: int, n_head_size: int) -> Rope:
        kind = self.key("rope.scaling.type", "linear")
        factor = float(self.key("rope.scaling.factor", self.key("rope.scale_linear", 1.0)))
        scale = 1.0 if kind == "none" else 1 / factor
        base = float(self.key("rope.freq_base", 10000.0))
        yarn = kind == "yarn"
        attn_factor = float(self.key("rope.scaling.attn_factor", 1.0))
        extra: dict[str, float] = {}
        if yarn and self.family.temperature:
            attn_factor *= self._yarn_log_mul(factor)
            defaults = {"beta_fast": 32.0, "beta_slow": 1.0}
            extra = {name: float(self.key(f"rope.scaling.yarn_{name}", value)) for name, value in defaults.items()}
        if self.window(layer):
            base, scale = float(self.key("rope.freq_base_swa", 10000.0)), 1.0
        return Rope(
            n_dims=int(self.key("rope.dimension_count", n_head_size)),
            base=base,
            scale=scale,
            factors=self.tensors.get("rope_freqs.weight") if self.family.rope_factors else None,
            yarn=yarn,
            n_ctx_orig=int(self.key("rope.scaling.original_context_length", self.key("context_length"))),
            attn_factor=attn_factor,
            halves=self.family.halves,
            like_ggml=self.like_ggml,
            **extra,
        )

    def _yarn_log_mul(self, factor: float) -> float:
        """What yarn_log_multiplier takes away again from YaRN's stretch; 1 without the key."""
        multiplier = float(self.key("rope.scaling.yarn_log_multiplier", 0))
        if multiplier == 0 or factor <= 1:
            return 1.0
        return float(1 / (0.1 * multiplier * np.log(factor) + 1))

    def temperature(self, positions: Array) -> Array:
        """Factor on the queries, by position. Source: Llama 4's attention temperature, used by Ministral 3."""
        strength = float(self.key("attention.temperature_scale", 0)) if self.family.temperature else 0.0
        if strength == 0:
            return np.ones_like(positions)
        period = self.key("rope.scaling.original_context_length", self.key("context_length"))
        return np.log(np.floor(positions / period) + 1) * strength + 1

    # -- the layers

    def mix(self, x: Array, layer: int, positions: Array) -> Array:
        name = f"blk.{layer}"
        if self.family.gated and f"{name}.ssm_out.weight" in self.tensors:
            return linear_attention.delta(self, x, name)
        if f"{name}.ssm_in.weight" in self.tensors:
            return recurrent.mamba2(self, x, name)
        if f"{name}.shortconv.in_proj.weight" in self.tensors:
            return recurrent.short_convolution(self, x, name)
        if f"{name}.attn_kv_a_mqa.weight" in self.tensors:
            return latent.latent_attention(self, x, layer, positions)
        return self.attend(x, layer, positions)

    def attend(self, x: Array, layer: int, positions: Array) -> Array:
        name = f"blk.{layer}"
        n_heads = self.per_layer("attention.head_count", layer, None)
        n_heads_kv = self.per_layer("attention.head_count_kv", layer, n_heads)
        size = int(self.key("attention.key_length", self.n_embd // n_heads))
        q = self.linear(x, f"{name}.attn_q").reshape(len(x), n_heads, -1)
        q, gate = q[..., :size], q[..., size:]
        k = self.linear(x, f"{name}.attn_k").reshape(len(x), n_heads_kv, size)
        v = self.linear(x, f"{name}.attn_v").reshape(len(x), n_heads_kv, -1)
        if self.family.qk_norm:
            q, k = self.norm(q, f"{name}.attn_q_norm"), self.norm(k, f"{name}.attn_k_norm")
        rope = self.rope(layer, size)
        q = rope(q, positions) * self.temperature(positions)[:, None, None]
        k = rope(k, positions)
        scale = 1 / np.sqrt(size)
        if self.arch == "gemma3" and self.n_layer == 62:  # the 27B model alone scales by n_embd / n_heads
            scale = 1 / np.sqrt(self.n_embd // n_heads)
        y = attention(q, k, v, scale, self.window(layer))
        if self.family.gated:
            y = y * linear_attention.sigmoid(gate.reshape(len(x), -1))
        return self.linear(y, f"{name}.attn_output")

    def feed_forward(self, x: Array, layer: int) -> Array:
        name = f"blk.{layer}"
        if f"{name}.ffn_gate_inp.weight" not in self.tensors:
            hidden = self.gate(self.linear(x, f"{name}.ffn_gate")) * self.linear(x, f"{name}.ffn_up")
            return self.linear(hidden, f"{name}.ffn_down")
        if f"{name}.ffn_up_shexp.weight" in self.tensors:
            return latent.experts(self, x, name)
        weights = route(softmax(self.linear(x, f"{name}.ffn_gate_inp")), int(self.key("expert_used_count")))
        gate, up, down = (self.tensors[f"{name}.ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
        out = np.zeros_like(x)
        for expert in range(len(gate)):
            hidden = self.gate(x @ gate[expert].T) * (x @ up[expert].T)
            out += weights[:, expert : expert + 1] * (hidden @ down[expert].T)
        return out

    def logits(self, tokens: Sequence[int]) -> Array:
        """Scores of the next token after each of *tokens*, at positions 0, 1, 2, ...; shape (n_tokens, n_vocab)."""
        if self.arch == "rwkv7":
            return linear_attention.rwkv7(self, tokens)
        positions = np.arange(len(tokens), dtype=np.float64)
        x = self.tensors["token_embd.weight"][np.asarray(tokens)]
        if self.family.scale_embedding:
            x = x * np.sqrt(self.n_embd)
        for layer in range(self.n_layer):
            name = f"blk.{layer}"
            y = self.mix(self.norm(x, f"{name}.attn_norm"), layer, positions)
            x = x + (self.norm(y, f"{name}.post_attention_norm") if self.family.post_norms else y)
            if f"{name}.{self.family.ffn_norm}.weight" not in self.tensors:
                continue
            y = self.feed_forward(self.norm(x, f"{name}.{self.family.ffn_norm}"), layer)
            x = x + (self.norm(y, f"{name}.post_ffw_norm") if self.family.post_norms else y)
        output = "output" if "output.weight" in self.tensors else "token_embd"
        scores = self.linear(self.norm(x, self.family.output_norm), output)
        cap = float(self.key("final_logit_softcapping", 0)) if self.family.softcap else 0.0
        return cap * np.tanh(scores / cap) if cap else scores


def nmse(actual: np.ndarray, expected: np.ndarray) -> float:
    """Normalised mean squared error: squared differences over squared expectations."""
    wanted = np.asarray(expected, np.float64)
    return float(np.sum((np.asarray(actual, np.float64) - wanted) ** 2) / np.sum(wanted**2))
