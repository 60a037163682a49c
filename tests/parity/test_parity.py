"""Logits of the library against the NumPy forward pass and against recorded ones, however a prompt is split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM
from tests.support.gguf_reader import write_f32_copy
from tests.support.reference import Reference, nmse
from tests.support.tiny import ARCHITECTURES, tiny_tokens

CHUNKS = [1, 7, 32, 10_000]  # token by token, around one KV block of 32, all at once
LENGTH = 150
FIXTURES = ["llama-dense", "llama-moe", "mistral3-dense", "gemma3-dense"]


def keys(arch: str, **values: Any) -> dict[str, Any]:
    """Metadata of an architecture; ``__`` stands for a dot."""
    return {"metadata": {f"{arch}.{name.replace('__', '.')}": value for name, value in values.items()}}


def yarn(arch: str, **values: Any) -> dict[str, Any]:
    scaling = {"rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 64}
    return keys(arch, rope__scaling__type="yarn", **scaling, **values)


# Each of these was compared with llama.cpp as well (xllamacpp 2026.10.11549, log-probabilities of a next token after
# 200 tokens): the forward pass in NumPy differs by less than 1.1e-4.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "biases, tied, rope factors": ("llama", {"tied": True, "bias": True, "rope_factors": True}),
    "rope linear": ("llama", keys("llama", rope__scaling__type="linear", rope__scaling__factor=4.0)),
    "rope scale_linear": ("llama", keys("llama", rope__scale_linear=2.0)),
    "rope none": ("llama", keys("llama", rope__scaling__type="none", rope__scaling__factor=4.0)),
    "rope yarn": ("llama", yarn("llama")),
    "keys of others": (
        "llama",
        yarn(
            "llama",
            rope__scaling__attn_factor=1.3,
            rope__scaling__yarn_log_multiplier=0.7,
            rope__scaling__yarn_beta_fast=16.0,
            attention__temperature_scale=0.5,
            attention__scale=0.3,
            attention__sliding_window=16,
            final_logit_softcapping=2.0,
        ),
    ),
    "experts scaled": ("llama-moe", keys("llama", expert_weights_scale=2.5, expert_weights_norm=False)),
    "one expert": ("llama-moe", {"n_expert_used": 1}),
    "all experts": ("llama-moe", {"n_expert": 3, "n_expert_used": 3}),
    "experts, biases, tied": ("llama-moe", {"tied": True, "bias": True, "rope_factors": True}),
    "temperature": (
        "mistral3",
        keys("mistral3", attention__temperature_scale=0.5, rope__scaling__original_context_length=32),
    ),
    "mistral3 yarn": ("mistral3", yarn("mistral3")),
    "yarn, log multiplier 1, temperature": (
        "mistral3",
        yarn("mistral3", rope__scaling__yarn_log_multiplier=1.0, attention__temperature_scale=0.1),
    ),
    "yarn, betas": (
        "mistral3",
        yarn(
            "mistral3",
            rope__scaling__yarn_log_multiplier=0.7,
            rope__scaling__yarn_beta_fast=8.0,
            rope__scaling__yarn_beta_slow=2.0,
        ),
    ),
    "gemma tied, biases": ("gemma3", {"tied": True, "bias": True}),
    "softcap": ("gemma3", keys("gemma3", final_logit_softcapping=3.0)),
    "gemma linear": ("gemma3", keys("gemma3", rope__scaling__type="linear", rope__scaling__factor=8.0)),
    "pattern of six": (
        "gemma3",
        {"n_layer": 7, **keys("gemma3", attention__sliding_window_pattern=None, rope__freq_base_swa=5000.0)},
    ),
    "pattern as list": ("gemma3", keys("gemma3", attention__sliding_window_pattern=[False, True])),
    "no window": ("gemma3", keys("gemma3", attention__sliding_window=None)),
    "gemma yarn": ("gemma3", yarn("gemma3")),
}
VARIANTS |= {arch: (arch, {}) for arch in ARCHITECTURES}


def tolerance(arch: str) -> float:
    """Largest NMSE: float32 against float64; GELU may come from a table of f16 (alone it makes 1e-9)."""
    return 1e-7 if arch == "gemma3" else 1e-9


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_tiny_models_match_reference(variant: str, chunk: int, tiny: Callable[..., Path]) -> None:
    arch, options = VARIANTS[variant]
    path = tiny(arch, **options)
    tokens = tiny_tokens(LENGTH)
    with LLM(path, kv_type="f32", n_ctx=256, threads=1) as llm:
        actual = llm.logits(tokens, chunk=chunk)
    assert actual.dtype == np.float32
    assert nmse(actual, Reference.from_file(path).logits(tokens)) < tolerance(arch)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_sequences_in_one_step(arch: str, tiny: Callable[..., Path]) -> None:
    """Sequences of different lengths that share steps get the logits they get alone."""
    path = tiny(arch)
    prompts = [tiny_tokens(n, seed=n) for n in (100, 37, 1, 64)]
    reference = Reference.from_file(path)
    with LLM(path, kv_type="f32", n_ctx=256, threads=1) as llm:
        for chunk in (None, 5, 33):
            together = llm.logits(prompts, chunk=chunk)
            assert [rows.shape for rows in together] == [(len(p), llm.info.n_vocab) for p in prompts]
            for prompt, rows in zip(prompts, together, strict=True):
                assert nmse(rows, llm.logits(prompt)) < tolerance(arch)
                assert nmse(rows, reference.logits(prompt)) < tolerance(arch)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_two_threads(arch: str, tiny: Callable[..., Path]) -> None:
    """The tests above use one thread, which is quickest for models this small."""
    path = tiny(arch)
    tokens = tiny_tokens(LENGTH)
    with LLM(path, kv_type="f32", n_ctx=256, threads=2) as llm:
        assert nmse(llm.logits(tokens), Reference.from_file(path).logits(tokens)) < tolerance(arch)


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weight_and_cache_types(arch: str, kv_type: Any, dtype: str, tiny: Callable[..., Path]) -> None:
    """Rounded weights are rounded in the reference too; activations and cache may be rounded in the library alone."""
    # All experts: with rounded activations another one may be chosen, and then the logits differ by any amount.
    path = tiny(arch, dtype=dtype, **({"n_expert": 3, "n_expert_used": 3} if arch == "llama-moe" else {}))
    tokens = tiny_tokens(LENGTH)
    with LLM(path, kv_type=kv_type, n_ctx=256, threads=1) as llm:
        actual = llm.logits(tokens)
    rounded = arch in ("mamba2", "qwen3next")  # what is rounded before exp comes through
    limit = 4e-3 if rounded else 2e-3 if kv_type == "q8_0" else 1e-3
    assert nmse(actual, Reference.from_file(path).logits(tokens)) < limit


# ---- recorded logits ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def f32_copy(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("f32")

    def copy(name: str) -> Path:
        target = folder / f"{name}.gguf"
        if not target.exists():
            write_f32_copy(shared / "data" / "archs" / f"{name}.gguf", target)
        return target

    return copy


@pytest.mark.parametrize("chunk", [*CHUNKS, 160])
@pytest.mark.parametrize("name", FIXTURES)
def test_recorded_logits_f32(name: str, chunk: int, shared: Path, f32_copy: Callable[[str], Path]) -> None:
    expected = np.load(shared / "data" / "archs" / f"{name}.npz")
    with LLM(f32_copy(name), kv_type="f32", n_ctx=256, threads=1) as llm:
        actual = llm.logits(expected["tokens"].tolist(), chunk=chunk)
    assert nmse(actual[expected["positions"]], expected["logits"]) < 1e-6


@pytest.mark.parametrize("chunk", [*CHUNKS, 160])
@pytest.mark.parametrize("name", FIXTURES)
def test_recorded_logits_q8_0(name: str, chunk: int, shared: Path) -> None:
    expected = np.load(shared / "data" / "archs" / f"{name}.npz")
    with LLM(shared / "data" / "archs" / f"{name}.gguf", kv_type="f32", n_ctx=256, threads=1) as llm:
        actual = llm.logits(expected["tokens"].tolist(), chunk=chunk)
    limit = max(5e-4, 4 * nmse(expected["logits_int8"], expected["logits"]))
    assert nmse(actual[expected["positions"]], expected["logits"]) < limit
