"""A tiny BERT that reads text, with a classifier for pairs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.testing import tiny_model
from tests.support.gguf_reader import read_gguf
from tests.support.gguf_writer import TYPE_I32, Arr, write_gguf

WORDS = re.findall("[a-z]+", "the cat dog is in of and sat ran over hill far away rain she at sea boat tin")


def wordpiece(n: int = 296) -> dict[str, Any]:
    """BERT's vocabulary with every letter, some words, and unused entries up to *n*."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"▁{one}" for one in [*letters, *WORDS])]
    tokens += [f"[unused{i}]" for i in range(n - len(tokens))]
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": Arr(TYPE_I32, [3] * 5 + [1] * (n - 5)),
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": None,
    }


def tiny_reranker(path: Path) -> Path:
    """Weights in F32, 64 tokens of context; without a pair its embeddings are means."""
    tiny_model("bert", path, weight_type="F32", metadata=wordpiece(), ctx=64)
    keys, tensors = read_gguf(path)
    rng, width = np.random.default_rng(5), tensors["token_embd.weight"].shape[1]
    for name, shape in (("cls", (width, width)), ("cls.output", (1, width))):
        tensors[f"{name}.weight"] = rng.normal(0, 0.1, shape).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    keys["tokenizer.ggml.token_type"] = Arr(TYPE_I32, keys["tokenizer.ggml.token_type"])
    return write_gguf(path, keys, tensors)
