"""Latent attention: the absorbed form and files of before it give what whole keys and values give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgellm import LLM, FormatError
from edgellm.testing import tiny_model
from edgellm.testing.gguf_writer import write_gguf
from tests.support.gguf_reader import read_gguf
from tests.support.reference import Reference, nmse
from tests.support.tiny import tiny_tokens

GROUPS = {"deepseek2.expert_group_count": 4, "deepseek2.expert_group_used_count": 2}


@pytest.fixture(scope="module")
def absorbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latent") / "absorbed.gguf"
    return tiny_model("deepseek2", path, n_layer=3, weight_type="F32", metadata=GROUPS, expert=8, used=3, rank=96)


@pytest.fixture(scope="module")
def whole(absorbed: Path) -> Path:
    """The same model as old files have it: attn_kv_b makes keys and values, head by head."""
    metadata, tensors = read_gguf(absorbed)
    for name in [name for name in tensors if name.endswith("attn_k_b.weight")]:
        k, v = tensors.pop(name), tensors.pop(name.replace("attn_k_b", "attn_v_b"))
        kv = np.concatenate([k.transpose(0, 2, 1), v], axis=1)  # [n_head, nope + value, rank]
        tensors[name.replace("attn_k_b", "attn_kv_b")] = kv.reshape(-1, kv.shape[2])
    size, value = (metadata.pop(f"deepseek2.attention.{part}_length_mla") for part in ("key", "value"))
    metadata |= {"deepseek2.attention.key_length": size, "deepseek2.attention.value_length": value}
    metadata["deepseek2.attention.head_count_kv"] = metadata["deepseek2.attention.head_count"]
    path = absorbed.with_name("whole.gguf")
    return write_gguf(path, metadata, {name: np.asarray(t, np.float32) for name, t in tensors.items()})


@pytest.mark.parametrize("form", ["absorbed", "whole"])
def test_both_forms_match_the_reference(form: str, request: pytest.FixtureRequest) -> None:
    path, tokens = request.getfixturevalue(form), tiny_tokens(100)
    expected = Reference.from_file(path).logits(tokens)
    with LLM(path, kv_type="f32", n_ctx=256, threads=2) as llm:
        for chunk in (1, 7, 1000):
            assert nmse(llm.logits(tokens, chunk=chunk), expected) < 1e-9
        for prompt, rows in zip((tokens, tokens[:33]), llm.logits([tokens, tokens[:33]], chunk=20), strict=True):
            assert nmse(rows, expected[: len(prompt)]) < 1e-9


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.kv_lora_rank", None, "kv_lora_rank is missing"),
        ("attention.kv_lora_rank", 4090, "at most 4096"),
        ("rope.dimension_count", 64, "less than the key length"),
        ("rope.dimension_count", None, "dimension_count is missing"),
    ],
)
def test_numbers_that_cannot_be(key: str, value: int | None, message: str, tmp_path: Path) -> None:
    path = tiny_model("deepseek2", tmp_path / "bad.gguf", metadata={f"deepseek2.{key}": value})
    with pytest.raises(FormatError, match=message):
        LLM(path)
