"""Stretching the context by option: the same as a file that says it, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from tests.support.tiny import tiny_model, tiny_tokens

TOKENS = tiny_tokens(100)
HEAD = 32


def logits(path: Path, **options: Any) -> np.ndarray:
    with edgellm.LLM(path, n_ctx=128, kv_type="f32", **options) as llm:
        return llm.logits(TOKENS)


def file_with(path: Path, **keys: Any) -> Path:
    return tiny_model(path, metadata={f"llama.rope.{name.replace('__', '.')}": value for name, value in keys.items()})


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"rope_scaling": "linear", "rope_factor": 4.0}, {"scaling__type": "linear", "scaling__factor": 4.0}),
        ({"rope_base": 50000.0}, {"freq_base": 50000.0}),
        (
            {"rope_scaling": "yarn", "rope_factor": 2.0, "rope_original_ctx": 64},
            {"scaling__type": "yarn", "scaling__factor": 2.0, "scaling__original_context_length": 64},
        ),
        (
            {"rope_scaling": "ntk", "rope_factor": 4.0},
            {"freq_base": float(np.float32(10000 * 4 ** (HEAD / (HEAD - 2))))},
        ),
        (  # 4 * 128 / 64 - 3
            {"rope_scaling": "dynamic", "rope_factor": 4.0, "rope_original_ctx": 64},
            {"freq_base": float(np.float32(10000 * 5 ** (HEAD / (HEAD - 2))))},
        ),
        ({"rope_scaling": "dynamic", "rope_factor": 4.0, "rope_original_ctx": 128}, {}),
    ],
    ids=["linear", "base", "yarn", "ntk", "dynamic", "dynamic within the context"],
)
def test_an_option_is_what_a_file_would_say(tmp_path: Path, options: dict[str, Any], keys: dict[str, Any]) -> None:
    plain = file_with(tmp_path / "plain.gguf")
    stretched = logits(plain, **options)
    assert np.allclose(stretched, logits(file_with(tmp_path / "says.gguf", **keys)), rtol=0, atol=2e-4)
    assert bool(keys) == (not np.array_equal(stretched, logits(plain)))


def test_none_undoes_what_the_file_stretches(tmp_path: Path) -> None:
    stretched = file_with(tmp_path / "s.gguf", scaling__type="linear", scaling__factor=8.0)
    assert np.array_equal(logits(stretched, rope_scaling="none"), logits(file_with(tmp_path / "plain.gguf")))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rope_scaling": "longer"}, "must be one of model, none, linear"),
        ({"rope_factor": -1.0}, "rope_factor is -1"),
        ({"rope_base": float("nan")}, "rope_base is nan"),
        ({"rope_base": 0.5}, r"from 1 to 1e\+15, or 0"),
    ],
)
def test_wrong_settings(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(edgellm.InvalidArgument, match=text):
        edgellm.LLM(tiny_model(tmp_path / "m.gguf"), **options)
