"""
A model's numbers from config.json to GGUF keys, and the rotary factors that are tensors in GGUF.

Sources: rotary scaling as in transformers' rope utilities (linear; YaRN, Peng et al. 2023; longrope, Ding et al. 2024;
llama3, from Meta's reference code); key names from the `gguf` package.
"""

from __future__ import annotations

import math
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from edgellm.errors import FormatError, Unsupported
from edgellm.tools.convert.families import Family
from edgellm.tools.convert.folder import Folder

Factors = dict[gguf.MODEL_TENSOR, NDArray[np.float32]]


def head_dim(folder: Folder, family: Family) -> int:
    """Width of a head."""
    if family.head_dim:
        return folder.count("head_dim", default=family.head_dim)
    n_embd, n_heads = folder.count("hidden_size"), folder.count("num_attention_heads")
    return folder.count("head_dim", default=n_embd // n_heads)


def write(folder: Folder, family: Family, writer: gguf.GGUFWriter, warnings: list[str]) -> Factors:
    """
    Add the keys of the model's shape and of its rotary positions.

    Returns:
        Rotary factors, which GGUF has as tensors.

    Raises:
        FormatError: A number is missing or impossible.
        Unsupported: The model does something the runtime does not compute.
    """
    _check_activation(folder, family)
    n_heads = folder.count("num_attention_heads")
    writer.add_block_count(folder.count("num_hidden_layers"))
    writer.add_context_length(
        folder.count("max_position_embeddings", default=131072 if family.arch == "GEMMA3" else None)
    )
    writer.add_embedding_length(folder.count("hidden_size"))
    writer.add_feed_forward_length(folder.count("intermediate_size"))
    writer.add_head_count(n_heads)
    if family.encoder:
        writer.add_layer_norm_eps(folder.number("layer_norm_eps"))
        writer.add_causal_attention(False)
        writer.add_token_type_count(folder.count("type_vocab_size", default=1))
        return {}
    n_heads_kv = folder.count("num_key_value_heads", default=n_heads)
    if n_heads % n_heads_kv:
        raise FormatError(f"config.json: {n_heads} heads cannot share {n_heads_kv} key-value heads evenly")
    writer.add_head_count_kv(n_heads_kv)
    writer.add_layer_norm_rms_eps(folder.number("rms_norm_eps", default=1e-6))
    if folder.config.get("head_dim") is not None or family.head_dim:
        writer.add_key_length(head_dim(folder, family))
        writer.add_value_length(head_dim(folder, family))
    _attention(folder, family, writer, warnings)
    return _rope(folder, family, writer, warnings)


def _check_activation(folder: Folder, family: Family) -> None:
    found = folder.config.get("hidden_activation") or folder.config.get("hidden_act") or family.activations[0]
    if found not in family.activations:
        raise Unsupported(
            f"config.json: the activation is '{found}'; for {folder.architecture} the runtime computes "
            f"'{family.activations[0]}' only"
        )


def _attention(folder: Folder, family: Family, writer: gguf.GGUFWriter, warnings: list[str]) -> None:
    config = folder.config
    window = config.get("sliding_window")
    if family.sliding_window:
        writer.add_sliding_window(folder.count("sliding_window", default=None) if window is not None else 0)
    elif window is not None and config.get("use_sliding_window", True):
        warnings.append(f"the sliding window of {window} tokens is left out: GGUF's {family.arch.lower()} has none")
    if family.softcaps:
        if config.get("attn_logit_softcapping") is not None:
            writer.add_attn_logit_softcapping(folder.number("attn_logit_softcapping"))
        if config.get("final_logit_softcapping") is not None:
            writer.add_final_logit_softcapping(folder.number("final_logit_softcapping"))
    if family.arch == "GEMMA3":
        _gemma3_pattern(folder, writer)
    if family.arch == "SMOLLM3":
        layers = config.get("no_rope_layers")
        n_layer = folder.count("num_hidden_layers")
        if layers and list(map(bool, layers)) != [(i + 1) % 4 != 0 for i in range(n_layer)]:
            raise Unsupported(
                "config.json: no_rope_layers is not every fourth layer, which is what the runtime computes"
            )
    scalar = config.get("query_pre_attn_scalar")
    n_embd, n_heads = folder.count("hidden_size"), folder.count("num_attention_heads")
    if scalar is not None and scalar not in (head_dim(folder, family), n_embd // n_heads):
        warnings.append(f"query_pre_attn_scalar is {scalar}, the runtime uses the head's width")


def _gemma3_pattern(folder: Folder, writer: gguf.GGUFWriter) -> None:
    """Every sixth layer sees everything; another rhythm has a key."""
    kinds, n_layer = folder.config.get("layer_types"), folder.count("num_hidden_layers")
    period = folder.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
    if kinds is not None:
        full = [i + 1 for i, kind in enumerate(kinds) if kind == "full_attention"]
        period = full[0] if full else n_layer + 1
        if full != list(range(period, n_layer + 1, period)):
            raise Unsupported(f"config.json: full attention in layers {full} follows no rhythm that GGUF can say")
    if period != 6:
        writer.add_sliding_window_pattern(period)


def _rope_parameters(folder: Folder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the layers that see everything, and of those with a window; as newer and older folders say it."""
    found = folder.config.get("rope_parameters") or folder.config.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise FormatError(f"config.json: the rope parameters are {found!r}, they must be an object")
    full = dict(found.get("full_attention") or found)
    window = dict(found.get("sliding_attention") or {})
    full.setdefault("rope_theta", folder.config.get("rope_theta"))
    window.setdefault("rope_theta", folder.config.get("rope_local_base_freq"))
    for key in ("partial_rotary_factor", "original_max_position_embeddings"):
        if folder.config.get(key) is not None:
            full.setdefault(key, folder.config[key])
    full["rope_type"] = str(full.get("rope_type") or full.get("type") or "default").lower()
    return full, window


def _rope(folder: Folder, family: Family, writer: gguf.GGUFWriter, warnings: list[str]) -> Factors:
    rope, window = _rope_parameters(folder)
    base = rope["rope_theta"] or (1_000_000.0 if family.arch == "GEMMA3" else None)
    if base is not None:
        writer.add_rope_freq_base(float(base))
    if window["rope_theta"] is not None:
        writer.add_rope_freq_base_swa(float(window["rope_theta"]))
    n_rot = int(head_dim(folder, family) * float(rope.get("partial_rotary_factor") or 1.0))
    if family.rope_dims:
        writer.add_rope_dimension_count(n_rot)
    if family.arch == "PHI3":
        return _longrope(folder, rope, n_rot, writer)
    return _scaling(folder, rope, n_rot, writer, warnings)


def _scaling(folder: Folder, rope: dict[str, Any], n_rot: int, writer: gguf.GGUFWriter, warnings: list[str]) -> Factors:
    kind = rope["rope_type"]
    if kind == "default":
        return {}
    if kind == "llama3":
        return {gguf.MODEL_TENSOR.ROPE_FREQS: _llama3_factors(rope, n_rot)}
    if kind == "dynamic":
        warnings.append("the dynamic rope scaling is left out: the model works up to its original context")
        return {}
    if kind not in ("linear", "yarn"):
        raise Unsupported(f"config.json: the rope scaling '{kind}' is not known for {folder.architecture}")
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if kind == "linear" else gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(_number(rope, "factor"))
    if kind == "yarn":
        original = rope.get("original_max_position_embeddings") or folder.count("max_position_embeddings")
        writer.add_rope_scaling_orig_ctx_len(int(original))
        for key, add in (
            ("extrapolation_factor", writer.add_rope_scaling_yarn_ext_factor),
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.get(key) is not None:
                add(_number(rope, key))
    return {}


def _number(rope: dict[str, Any], key: str, default: float | None = None) -> float:
    value = rope.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise FormatError(f"config.json: {key} of the rope scaling is {value!r}, it must be a number above 0")
    return float(value)


def _llama3_factors(rope: dict[str, Any], n_rot: int) -> NDArray[np.float32]:
    """Divisors of the angles: 1 for short waves, the factor for long ones, between them by wavelength."""
    base, factor = _number(rope, "rope_theta", 10000.0), _number(rope, "factor", 8.0)
    low, high = _number(rope, "low_freq_factor", 1.0), _number(rope, "high_freq_factor", 4.0)
    context = _number(rope, "original_max_position_embeddings", 8192)
    if low >= high:
        raise FormatError(f"config.json: low_freq_factor {low} must be below high_freq_factor {high}")
    step = (np.arange(0, n_rot, 2, dtype=np.float32) / np.float32(n_rot)).astype(np.float64)
    wavelength = 2 * math.pi * np.power(base, step)
    smooth = (context / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelength < context / high, 1.0, np.where(wavelength > context / low, factor, between))
    return factors.astype(np.float32)


def _longrope(folder: Folder, rope: dict[str, Any], n_rot: int, writer: gguf.GGUFWriter) -> Factors:
    context = folder.count("max_position_embeddings")
    original = folder.count(
        "original_max_position_embeddings", default=int(rope.get("original_max_position_embeddings") or context)
    )
    writer.add_rope_scaling_orig_ctx_len(original)
    if rope["rope_type"] == "default":
        return {}
    scale = context / original
    if rope["rope_type"] in ("su", "longrope"):
        stretch = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    elif rope["rope_type"] == "yarn":
        stretch = 0.1 * math.log(scale) + 1 if scale > 1 else 1.0
    else:
        raise Unsupported(f"config.json: the rope scaling '{rope['rope_type']}' is not known for {folder.architecture}")
    writer.add_rope_scaling_attn_factors(stretch)
    found: Factors = {}
    for key, tensor in (
        ("long_factor", gguf.MODEL_TENSOR.ROPE_FACTORS_LONG),
        ("short_factor", gguf.MODEL_TENSOR.ROPE_FACTORS_SHORT),
    ):
        values = rope.get(key)
        if not isinstance(values, list) or len(values) != n_rot // 2:
            raise FormatError(f"config.json: {key} of the rope scaling must be a list of {n_rot // 2} numbers")
        found[tensor] = np.asarray(values, np.float32)
    return found
