"""
A readable BERT in NumPy: what a sentence's embedding ought to be, and the WordPiece tokenizer in front of it.

Independent of the library: weights come straight from a Hugging Face folder (``BertReference.from_folder``) or from
arrays under GGUF's names (``from_gguf``). float64 throughout, one sentence at a time, no padding.

Sources: BERT, Devlin et al. 2019, and its published code (post-norm layers, exact GELU, learned positions, greedy
longest-match WordPiece); mean pooling as in Sentence-BERT, Reimers and Gurevych 2019.
"""

from __future__ import annotations

import json
import math
import re
import struct
import unicodedata
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_GGUF_NAMES = {  # GGUF's name: Hugging Face's, without .weight and .bias
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
    "cls": "pooler.dense",
    "cls.output": "classifier",
}


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Each row less its mean, divided by its standard deviation, times *weight*, plus *bias*."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled: Array = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps) * weight + bias
    return scaled


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result


def gelu(x: Array) -> Array:
    """x times the normal distribution's integral up to x."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    result: Array = 0.5 * x * (1 + erf(x / math.sqrt(2)))
    return result


class BertReference:
    """
    The forward pass.

    Args:
        tensors: Weights under Hugging Face's names, without a leading ``bert.``.
        n_layer: Layers.
        n_head: Heads.
        eps: Of the layer norms.
        pooling: "mean" or "cls".
    """

    def __init__(
        self, tensors: Mapping[str, np.ndarray], n_layer: int, n_head: int, eps: float = 1e-12, pooling: str = "mean"
    ) -> None:
        plain = {name: re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name)) for name in tensors}
        self.tensors = {plain[n].removeprefix("bert."): np.asarray(t, np.float64) for n, t in tensors.items()}
        self.n_layer, self.n_head, self.eps, self.pooling = n_layer, n_head, eps, pooling

    @classmethod
    def from_folder(cls, folder: str | PathLike[str]) -> BertReference:
        root = Path(folder)
        config = json.loads((root / "config.json").read_text("utf-8"))
        pooling = "mean"
        if (root / "1_Pooling" / "config.json").is_file():
            modes = json.loads((root / "1_Pooling" / "config.json").read_text("utf-8"))
            pooling = "cls" if modes.get("pooling_mode_cls_token") else "mean"
        tensors = read_safetensors(root / "model.safetensors")
        layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
        return cls(tensors, layers, heads, config["layer_norm_eps"], pooling)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> BertReference:
        """From what tests.support.gguf_reader.read_gguf gives."""
        renamed = {}
        for name, tensor in tensors.items():
            match = re.fullmatch(r"(?:blk\.(\d+)\.)?([\w.]+)\.(weight|bias)", name)
            assert match is not None, name
            layer = f"encoder.layer.{match[1]}." if match[1] else ""
            renamed[f"{layer}{_GGUF_NAMES[match[2]]}.{match[3]}"] = tensor
        return cls(
            renamed,
            metadata["bert.block_count"],
            metadata["bert.attention.head_count"],
            metadata["bert.attention.layer_norm_epsilon"],
            {1: "mean", 2: "cls"}[metadata["bert.pooling_type"]],
        )

    def linear(self, x: Array, name: str) -> Array:
        result: Array = x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
        return result

    def norm(self, x: Array, name: str) -> Array:
        return layer_norm(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], self.eps)

    def hidden(self, tokens: Sequence[int], second: int | None = None) -> Array:
        """The last layer's output for each token; shape (n_tokens, n_embd). *second*: where a second text begins."""
        embeddings = [
            self.tensors[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
        ]
        kinds = np.arange(len(tokens)) >= (len(tokens) if second is None else second)
        x = embeddings[0][np.asarray(tokens)] + embeddings[1][: len(tokens)] + embeddings[2][kinds.astype(int)]
        x = self.norm(x, "embeddings.LayerNorm")
        for layer in range(self.n_layer):
            name = f"encoder.layer.{layer}"
            attended = self.linear(self.attend(x, name), f"{name}.attention.output.dense")
            x = self.norm(x + attended, f"{name}.attention.output.LayerNorm")
            inner = gelu(self.linear(x, f"{name}.intermediate.dense"))
            x = self.norm(x + self.linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return x

    def attend(self, x: Array, name: str) -> Array:
        """Every token sees every token."""
        q, k, v = (
            self.linear(x, f"{name}.attention.self.{part}").reshape(len(x), self.n_head, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[2])
        result: Array = np.einsum("hij,jhd->ihd", softmax(scores), v).reshape(len(x), -1)
        return result

    def score(self, tokens: Sequence[int], second: int) -> float:
        """What a cross-encoder's classifier says of two texts (Nogueira and Cho 2019)."""
        pooled = np.tanh(self.linear(self.hidden(tokens, second)[:1], "pooler.dense"))
        return float(self.linear(pooled, "classifier")[0, 0])

    def embed(self, tokens: Sequence[int], *, normalize: bool = True) -> Array:
        """The sentence's vector; shape (n_embd,), of length 1 unless *normalize* is false."""
        hidden = self.hidden(tokens)
        vector: Array = hidden[0] if self.pooling == "cls" else hidden.mean(axis=0)
        return vector / np.linalg.norm(vector) if normalize else vector


class WordPiece:
    """
    BERT's tokenizer for text in small letters.

    Args:
        vocabulary: Ids by piece, ``##`` before those that continue a word.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self.ids = dict(vocabulary)

    @classmethod
    def from_folder(cls, folder: str | PathLike[str]) -> WordPiece:
        lines = (Path(folder) / "vocab.txt").read_text("utf-8").split("\n")
        return cls({line: number for number, line in enumerate(lines) if line})

    def encode(self, text: str) -> list[int]:
        """Ids with [CLS] and [SEP] around them."""
        pieces = [piece for word in self.words(text) for piece in self.pieces(word)]
        return [self.ids["[CLS]"], *pieces, self.ids["[SEP]"]]

    def words(self, text: str) -> list[str]:
        """Small letters without accents; every sign and every Chinese character is a word of its own."""
        plain = unicodedata.normalize("NFD", text.lower())
        out = []
        for char in plain:
            kind = unicodedata.category(char)
            if kind == "Mn" or (kind[0] == "C" and char not in "\t\n\r"):
                continue
            ascii_sign = char.isascii() and not char.isalnum() and not char.isspace()
            alone = kind[0] == "P" or ascii_sign or "\u4e00" <= char <= "\u9fff" or "\u3400" <= char <= "\u4dbf"
            out.append(f" {char} " if alone else char)
        return "".join(out).split()

    def pieces(self, word: str) -> list[int]:
        """The longest piece first, again and again; a word that leaves a rest is unknown as a whole."""
        found, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self.ids)
            end = next(ends, None)
            if end is None or len(word) > 100:
                return [self.ids["[UNK]"]]
            found.append(self.ids[prefix + word[start:end]])
            start = end
        return found


def read_safetensors(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """The float tensors of a file, trusting it."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    found = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__" or entry["dtype"] not in ("F32", "F16", "BF16"):
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        raw = np.frombuffer(data[begin:end], {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[entry["dtype"]])
        if entry["dtype"] == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        found[name] = raw.astype(np.float32).reshape(entry["shape"])
    return found
