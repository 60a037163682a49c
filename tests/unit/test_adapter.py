"""LoRA adapters: as if their matrices had been added to the weights, and gone when they are taken off."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from tests.support.gguf_writer import write_gguf
from tests.support.tiny import tiny_metadata, tiny_model, tiny_tensors, tiny_tokens

RANK, ALPHA = 4, 8.0
TARGETS = ("attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up_exps", "ffn_down_exps", "output")


def weights(arch: str) -> dict[str, np.ndarray]:
    return dict(tiny_tensors(tiny_metadata(arch)))


def pairs(arch: str, seed: int = 3) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(A [rank, in], B [out, rank]) by weight; of experts with one more dimension; the table's A is [tokens, rank]."""
    random = np.random.default_rng(seed)
    made = {}
    for name, w in weights(arch).items():
        if not any(f"{target}.weight" in name for target in TARGETS) and name != "token_embd.weight":
            continue
        if name == "token_embd.weight":
            a, b = random.standard_normal((w.shape[0], RANK)), random.standard_normal((w.shape[1], RANK))
        else:
            a = random.standard_normal((*w.shape[:-2], RANK, w.shape[-1]))
            b = random.standard_normal((*w.shape[:-1], RANK))
        made[name] = (0.1 * a).astype(np.float32), (0.1 * b).astype(np.float32)
    return made


def write_adapter(path: Path, arch: str, made: dict[str, tuple[np.ndarray, np.ndarray]], **keys: Any) -> Path:
    metadata = {
        "general.type": "adapter",
        "general.architecture": arch.removesuffix("-moe"),
        "adapter.type": "lora",
        "adapter.lora.alpha": ALPHA,
    } | keys
    tensors = {}
    for name, (a, b) in made.items():
        tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"] = a, b
    return write_gguf(path, metadata, tensors)


def merged(path: Path, arch: str, made: dict[str, tuple[np.ndarray, np.ndarray]], scale: float) -> Path:
    """The model that has the adapter in its weights."""
    stored = weights(arch)
    for name, (a, b) in made.items():
        delta = a @ b.T if name == "token_embd.weight" else b @ a
        stored[name] = stored[name] + (scale * ALPHA / RANK * delta).astype(np.float32)
    return write_gguf(path, tiny_metadata(arch), stored)


def nmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a - b) ** 2).sum() / (b**2).sum())


@pytest.mark.parametrize("arch", ["llama", "llama-moe", "gemma3"])
def test_an_adapter_is_its_product_added_to_the_weights(tmp_path: Path, arch: str) -> None:
    made = pairs(arch)
    if arch == "gemma3":
        made.pop("token_embd.weight")
    adapter = write_adapter(tmp_path / "a.gguf", arch, made)
    tokens = tiny_tokens(40)
    with (
        edgellm.LLM(tiny_model(tmp_path / "m.gguf", arch), kv_type="f32", n_ctx=64) as llm,
        edgellm.LLM(merged(tmp_path / "w.gguf", arch, made, 0.5), kv_type="f32", n_ctx=64) as wanted,
    ):
        plain = llm.logits(tokens)
        llm.set_adapter(adapter, 0.5)
        assert llm.adapters == {adapter: 0.5}
        changed = llm.logits(tokens)
        assert nmse(changed, wanted.logits(tokens)) < 1e-9
        assert nmse(changed, plain) > 1e-3
        assert np.array_equal(changed, llm.logits(tokens, chunk=7))
        llm.set_adapter(adapter, 0.0)
        assert nmse(llm.logits(tokens), plain) < 1e-12
        llm.remove_adapter(adapter)
        assert np.array_equal(llm.logits(tokens), plain)
        assert llm.adapters == {}


def test_several_at_once_add_up(tmp_path: Path) -> None:
    one, two = pairs("llama", 3), pairs("llama", 4)
    both = {
        name: (np.concatenate([one[name][0], two[name][0]], axis=1 if name == "token_embd.weight" else 0), b)
        for name in one
        for b in [np.concatenate([one[name][1], two[name][1]], axis=1)]
    }
    tokens = tiny_tokens(20)
    with edgellm.LLM(tiny_model(tmp_path / "m.gguf"), kv_type="f32", n_ctx=64) as llm:
        llm.set_adapter(write_adapter(tmp_path / "1.gguf", "llama", one))
        llm.set_adapter(write_adapter(tmp_path / "2.gguf", "llama", two))
        summed = llm.logits(tokens)
        llm.remove_adapter(tmp_path / "1.gguf")
        llm.remove_adapter(tmp_path / "2.gguf")
        llm.set_adapter(write_adapter(tmp_path / "12.gguf", "llama", both), 2.0)  # rank 8 halves alpha / rank
        assert nmse(summed, llm.logits(tokens)) < 1e-9


def test_threads_that_change_adapters_do_not_lose_each_others(tmp_path: Path) -> None:
    adapters = [write_adapter(tmp_path / f"{n}.gguf", "llama", pairs("llama", n)) for n in range(4)]
    with edgellm.LLM(tiny_model(tmp_path / "m.gguf"), n_ctx=64) as llm:
        for _ in range(5):
            with ThreadPoolExecutor(len(adapters)) as pool:
                list(pool.map(llm.set_adapter, adapters))
            assert set(llm.adapters) == set(adapters)
            with ThreadPoolExecutor(len(adapters)) as pool:
                list(pool.map(llm.remove_adapter, adapters))
            assert llm.adapters == {}


def test_parts_of_a_fused_projection(tmp_path: Path) -> None:
    """attn_qkv is used as three weights; each takes its rows of B."""
    stored = weights("llama")
    made = pairs("llama")
    for layer in range(2):
        names = [f"blk.{layer}.attn_{part}.weight" for part in "qkv"]
        stored[f"blk.{layer}.attn_qkv.weight"] = np.concatenate([stored.pop(name) for name in names])
    random = np.random.default_rng(5)
    name = "blk.1.attn_qkv.weight"
    a = random.standard_normal((RANK, stored[name].shape[1])).astype(np.float32)
    b = random.standard_normal((stored[name].shape[0], RANK)).astype(np.float32)
    made = {name: (0.2 * a, 0.2 * b)}
    model = write_gguf(tmp_path / "m.gguf", tiny_metadata("llama"), stored)
    stored[name] = stored[name] + (ALPHA / RANK * (0.2 * b) @ (0.2 * a)).astype(np.float32)
    wanted = write_gguf(tmp_path / "w.gguf", tiny_metadata("llama"), stored)
    tokens = tiny_tokens(20)
    with edgellm.LLM(model, kv_type="f32", n_ctx=64) as llm, edgellm.LLM(wanted, kv_type="f32", n_ctx=64) as other:
        llm.set_adapter(write_adapter(tmp_path / "a.gguf", "llama", made))
        assert nmse(llm.logits(tokens), other.logits(tokens)) < 1e-9


def test_what_is_refused(tmp_path: Path) -> None:
    made = pairs("llama")
    with edgellm.LLM(tiny_model(tmp_path / "m.gguf"), n_ctx=64) as llm:
        other = write_adapter(tmp_path / "arch.gguf", "gemma3", made)
        with pytest.raises(edgellm.InvalidArgument, match="for a gemma3 model, and this is a llama model"):
            llm.set_adapter(other)
        with pytest.raises(edgellm.FormatError, match="no adapter"):
            llm.set_adapter(tmp_path / "m.gguf")
        with pytest.raises(edgellm.Unsupported, match="only LoRA"):
            llm.set_adapter(write_adapter(tmp_path / "t.gguf", "llama", made, **{"adapter.type": "control"}))
        a, b = made["blk.0.attn_q.weight"]
        wide = made | {"blk.0.attn_q.weight": (np.zeros((RANK, 96), np.float32), b)}
        with pytest.raises(edgellm.InvalidArgument, match=r"for another model: its matrices for blk\.0\.attn_q"):
            llm.set_adapter(write_adapter(tmp_path / "w.gguf", "llama", wide))
        deep = made | {"blk.9.attn_q.weight": (a, b)}
        with pytest.raises(edgellm.InvalidArgument, match=r"changes blk\.9\.attn_q\.weight, which this model lacks"):
            llm.set_adapter(write_adapter(tmp_path / "d.gguf", "llama", deep))
        plain = {"blk.0.attn_norm.weight": (np.zeros((RANK, 64), np.float32), np.zeros((1, RANK), np.float32))}
        with pytest.raises(
            edgellm.Unsupported, match=r"changes blk\.0\.attn_norm\.weight, which takes part in no product"
        ):
            llm.set_adapter(write_adapter(tmp_path / "n.gguf", "llama", plain))
        with pytest.raises(edgellm.FormatError, match="changes no weight"):
            llm.set_adapter(write_adapter(tmp_path / "e.gguf", "llama", {}))
        with pytest.raises(edgellm.InvalidArgument, match="not in use"):
            llm.remove_adapter(other)
        assert llm.adapters == {}
        with pytest.raises(edgellm.InvalidArgument, match="scale"):
            llm.set_adapter(write_adapter(tmp_path / "a.gguf", "llama", made), float("nan"))
        stream = llm.stream("the", max_tokens=8, ignore_eog=True)
        next(stream)
        with pytest.raises(edgellm.EdgellmError, match="no call is under way"):
            llm.set_adapter(tmp_path / "a.gguf")
        stream.close()  # type: ignore[attr-defined]
        llm.set_adapter(tmp_path / "a.gguf")
