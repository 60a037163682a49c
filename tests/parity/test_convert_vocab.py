"""
Whole vocabularies through `convert`: a Hugging Face tokenizer is made from a recorded vocabulary, converted, and must
give the recorded ids again, with keys equal to those of the recorded file.
"""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm import Tokenizer
from edgellm.tools.gguf_file import GgufFile
from tests.support import hf_folder as hf

pytest.importorskip("gguf")
from edgellm.tools.convert import convert

SHAPE = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "tie_word_embeddings": True}
BPE: dict[str, tuple[str | None, dict[str, Any]]] = {
    "qwen2": (hf.QWEN2, {}),
    "llama-bpe": (hf.LLAMA3, {"ignore_merges": True}),
    "starcoder": (None, {}),
}
Keys = dict[str, Any]


@pytest.fixture
def recorded(shared: Path, tmp_path: Path) -> Callable[[str], Keys]:
    """The keys of a recorded vocabulary, without ``tokenizer.ggml.``."""

    def read(name: str) -> Keys:
        path = tmp_path / "recorded.gguf"
        path.write_bytes(lzma.decompress((shared / "data" / "vocab" / f"{name}.gguf.xz").read_bytes()))
        with GgufFile(path) as file:
            return {key.removeprefix("tokenizer.ggml."): e.value() for key, e in file.entries.items()}

    return read


def check(folder: Path, keys: Keys, shared: Path, name: str) -> None:
    made = convert(folder, folder.with_suffix(".gguf"))
    with GgufFile(made.path) as file:
        actual = {key.removeprefix("tokenizer.ggml."): e.value() for key, e in file.entries.items()}
    assert actual["tokens"] == keys["tokens"]
    assert actual.get("merges") == keys.get("merges")
    assert actual["model"] == keys["model"]
    wrong = [i for i, (a, b) in enumerate(zip(actual["token_type"], keys["token_type"], strict=True)) if a != b]
    assert {(keys["tokens"][i], keys["token_type"][i]) for i in wrong} <= {("<unk>", 3)}  # UNKNOWN, which it also is
    if keys["model"] == "bert":
        return
    cases = json.loads(gzip.decompress((shared / "data" / "vocab" / f"{name}.json.gz").read_bytes()))
    with Tokenizer(made.path) as tokenizer:
        for case in cases:
            assert tokenizer.encode(case["text"], add_special=False) == case["ids"], case["text"]


def added(keys: Keys) -> list[dict[str, Any]]:
    rows = zip(keys["tokens"], keys["token_type"], strict=True)
    return [{"id": i, "content": t, "special": kind == 3} for i, (t, kind) in enumerate(rows) if kind in (3, 4)]


@pytest.mark.parametrize("name", BPE)
def test_byte_level_bpe(name: str, recorded: Callable[[str], Keys], shared: Path, tmp_path: Path) -> None:
    keys = recorded(name)
    regex, model = BPE[name]
    tokenizer = hf.bpe_tokenizer(regex, **model)
    rows = zip(keys["tokens"], keys["token_type"], strict=True)
    tokenizer["model"]["vocab"] = {t: i for i, (t, kind) in enumerate(rows) if kind == 1}
    tokenizer["model"]["merges"] = keys["merges"]
    tokenizer["added_tokens"] = added(keys)
    folder = hf.tiny_folder(
        tmp_path / "folder", "LlamaForCausalLM", tokenizer=tokenizer, n_vocab=len(keys["tokens"]), **SHAPE
    )
    check(folder, keys, shared, name)


@pytest.mark.parametrize("name", ["llama-spm", "phi-3"])
def test_sentencepiece(name: str, recorded: Callable[[str], Keys], shared: Path, tmp_path: Path) -> None:
    keys = recorded(name)
    rows = zip(keys["tokens"], keys["scores"], keys["token_type"], strict=True)
    model = hf.spm_model(pieces=[(t, s, kind) for t, s, kind in rows if kind != 5])
    folder = hf.tiny_folder(tmp_path / "folder", tokenizer=model, n_vocab=len(keys["tokens"]), **SHAPE)
    check(folder, keys, shared, name)


def test_sentencepiece_from_merges(recorded: Callable[[str], Keys], shared: Path, tmp_path: Path) -> None:
    """tokenizer.json alone, with merges made from the scores as Hugging Face's own converter makes them."""
    keys = recorded("llama-spm")
    rows = list(zip(keys["tokens"], keys["scores"], keys["token_type"], strict=True))
    scores = {text: score for text, score, kind in rows if kind == 1}
    merges: list[tuple[float, str, str]] = []
    for text, score in scores.items():
        pairs = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
        merges += [(-score, left, right) for left, right in pairs if left in scores and right in scores]
    tokenizer = {
        "added_tokens": added(keys),
        "normalizer": {"type": "Prepend", "prepend": "\u2581"},
        "model": {
            "type": "BPE", "byte_fallback": True, "unk_token": "<unk>",
            "vocab": {text: i for i, (text, _, _) in enumerate(rows)},
            "merges": [[left, right] for _, left, right in sorted(merges, key=lambda merge: merge[0])],
        },
    }  # fmt: skip
    folder = hf.tiny_folder(tmp_path / "folder", tokenizer=tokenizer, n_vocab=len(rows), **SHAPE)
    check(folder, keys, shared, "llama-spm")


def test_word_piece(recorded: Callable[[str], Keys], shared: Path, tmp_path: Path) -> None:
    keys = recorded("bert-bge")
    rows = zip(keys["tokens"], keys["token_type"], strict=True)
    plain = [t if kind != 1 else t[1:] if t.startswith("\u2581") else f"##{t}" for t, kind in rows]
    folder = hf.bert_folder(tmp_path / "folder", pieces=plain)
    check(folder, keys, shared, "bert-bge")
