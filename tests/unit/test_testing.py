"""Tiny models of every family: they open, compute, chat, and the table keeps step with the library."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgellm import LLM, InvalidArgument, _native
from edgellm.testing import ARCHITECTURES, tiny_model
from edgellm.testing.table import FAMILIES
from tests.support.gguf_reader import read_gguf
from tests.support.reference import Reference, nmse

FAMILY_FILES = sorted((Path(__file__).parents[2] / "csrc" / "models" / "families").glob("*.c"))
SUPPORTED = sorted(
    name
    for path in FAMILY_FILES
    for name in re.findall(r'^EL_ARCH\(\w+\) = \{\s*\.name = "([^"]+)"', path.read_text(encoding="utf-8"), re.M)
)


def test_every_supported_family_has_a_tiny_model() -> None:
    assert SUPPORTED
    assert set(SUPPORTED) <= set(ARCHITECTURES)


@pytest.mark.parametrize("arch", [name for name in SUPPORTED if name in FAMILIES and name != "t5"])
def test_it_computes(arch: str, tmp_path: Path) -> None:
    path = tiny_model(arch, tmp_path / "tiny.gguf")
    assert path.stat().st_size < 3_000_000
    ids = [5, 60, 7, 200, 33]
    if FAMILIES[arch].encoder:
        model = _native.Model(path)
        engine = model.engine(n_ctx=64, n_seqs=1, n_threads=1, pooling="mean")
        engine.step([(engine.open_seq(), ids, _native.OUT_ALL, False)])
        values = np.frombuffer(engine.embeddings(0)[0], np.float32).copy()
        engine.close()
        model.close()
    else:
        with LLM(path, n_ctx=64, threads=1) as llm:
            values = llm.logits(ids)
            assert values.shape == (5, llm.info.n_vocab)
    assert np.isfinite(values).all()
    assert values.std() > 0


def test_it_chats(tmp_path: Path) -> None:
    with LLM(tiny_model("llama", tmp_path / "tiny.gguf"), n_ctx=256, threads=1) as llm:
        answer = llm.chat([{"role": "user", "content": "Hello, wörld"}], max_tokens=4, ignore_eog=True)
        assert answer["usage"]["completion_tokens"] == 4
        assert llm.detokenize(llm.tokenize("naïve \U0001f600 text")) == "naïve \U0001f600 text"


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b, c = (tiny_model("qwen2", tmp_path / f"{i}.gguf", seed=seed).read_bytes() for i, seed in enumerate((1, 1, 2)))
    assert a == b
    assert a != c


def test_without_a_path_it_is_a_new_temporary_file() -> None:
    path = tiny_model()
    try:
        assert path.name.startswith("tiny-llama-")
        assert path.stat().st_size > 100_000
    finally:
        path.unlink()


def test_sizes_keys_and_the_dummy_tokenizer(tmp_path: Path) -> None:
    path = tiny_model(
        "llama", tmp_path / "m.gguf", n_layer=3, weight_type="F32", tokenizer="test", embd=64, head=2,
        metadata={"llama.rope.freq_base": 500.0, "general.name": None},
    )  # fmt: skip
    metadata, tensors = read_gguf(path)
    assert metadata["llama.block_count"] == 3
    assert metadata["llama.rope.freq_base"] == 500.0
    assert "general.name" not in metadata
    assert tensors["token_embd.weight"].shape == (128, 64)
    assert tensors["blk.2.attn_q.weight"].shape == (64, 64)
    ids = list(range(40))
    with LLM(path, kv_type="f32", n_ctx=64, threads=1) as llm:
        assert nmse(llm.logits(ids), Reference.from_file(path).logits(ids)) < 1e-9


@pytest.mark.parametrize("weight_type", ["F32", "F16", "BF16", "Q8_0"])
def test_weight_types(weight_type: str, tmp_path: Path) -> None:
    with LLM(tiny_model("llama", tmp_path / "m.gguf", weight_type=weight_type), n_ctx=64, threads=1) as llm:  # type: ignore[arg-type]
        assert llm.info.type == weight_type
        assert np.isfinite(llm.logits([1, 2, 3])).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"arch": "lama"}, "no tiny model of 'lama'; there are: .*llama"),
        ({"weight_type": "Q4_K"}, "weight_type is 'Q4_K'; it must be one of F32"),
        ({"tokenizer": "bpe"}, "tokenizer is 'bpe'; it must be bytes or test"),
        ({"n_embd": 64}, "n_embd is no size; there are: altup, .*embd"),
        ({"colour": 4}, "colour is no size; there are: (?!.*colour)"),
        ({"embd": -1}, "embd is -1; it must be a whole number of at least 1"),
        ({"n_layer": "two"}, "n_layer is 'two'"),
    ],
)
def test_what_it_refuses(arguments: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=says):
        tiny_model(**{"path": tmp_path / "m.gguf", **arguments})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_every_supported_family_is_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    table = text.partition("<!-- families -->")[2].partition("<!-- /families -->")[0]
    named = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`([^`]+)`", line.partition("|")[2].partition("|")[0])
    }
    assert set(SUPPORTED) <= named
