"""
Tiny Hugging Face model folders with random weights: config.json, safetensors, a tokenizer.

``tiny_folder(path, "Qwen3ForCausalLM")`` writes one for a family that `edgellm convert` knows. The tokenizer is the
byte-level BPE of tests.support.tiny as a tokenizer.json, a SentencePiece file, or WordPiece.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.testing.vocabulary import CHAT_TEMPLATE, CONTROL_TOKENS, MERGES, byte_letters

# The patterns that Llama 3's and Qwen2's tokenizer.json have.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
LLAMA3 += r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
GEMMAS = ("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM")
DECODERS = (
    "LlamaForCausalLM", "MistralForCausalLM", "SmolLM3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", *GEMMAS,
    "Phi3ForCausalLM",
)  # fmt: skip


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], dtype: str = "F32") -> None:
    """A file; floats become *dtype* ("F32", "F16" or "BF16"), int64 stays."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        kind = "I64" if tensor.dtype == np.int64 else dtype
        blobs.append(encoded(tensor, kind))
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blobs[-1])]}
        offset += len(blobs[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def encoded(tensor: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":  # cut, not rounded: tests make weights that have no more bits
        return (tensor.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    return tensor.astype({"F32": "<f4", "F16": "<f2", "I64": "<i8"}[dtype]).tobytes()


def bpe_tokenizer(regex: str | None = QWEN2, **model: Any) -> dict[str, Any]:
    """tokenizer.json of the byte-level BPE; *regex* None: GPT-2's own cuts with digits alone, as SmolLM has it."""
    merges = MERGES.split(", ")
    tokens = [*byte_letters(), *(merge.replace(" ", "") for merge in merges)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": regex is None}
    first: dict[str, Any] = {"type": "Digits", "individual_digits": True}
    if regex is not None:
        first = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {
        "added_tokens": [{"id": i, "content": text, "special": True} for i, text in enumerate(CONTROL_TOKENS)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [first, byte_level]},
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens, 3)}, "merges": merges, **model},
    }


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def proto(number: int, value: int | float | bytes) -> bytes:
    """One field of a Protocol Buffers message."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


SPM_PIECES = [
    ("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{b:02X}>", 0.0, 6) for b in range(256)),
    ("\u2581t", -0.0, 1), ("he", -1.0, 1), ("\u2581the", -2.0, 1), ("<turn>", 0.0, 4),
    *((letter, -20.0 - i, 1) for i, letter in enumerate("\u2581" + LETTERS)),
]  # fmt: skip


def spm_model(
    model_type: int = 2, add_dummy_prefix: bool = True, pieces: Sequence[tuple[str, float, int]] = SPM_PIECES
) -> bytes:
    """tokenizer.model: by default a few pieces over the bytes."""
    encoded_pieces = b"".join(
        proto(1, proto(1, text.encode()) + proto(2, float(score)) + (proto(3, kind) if kind != 1 else b""))
        for text, score, kind in pieces
    )
    trainer = proto(2, proto(3, model_type) + proto(40, 0) + proto(41, 1) + proto(42, 2) + proto(43, (1 << 64) - 1))
    return encoded_pieces + trainer + proto(3, proto(1, b"identity") + proto(3, int(add_dummy_prefix)))


def tiny_config(architecture: str, **overrides: Any) -> dict[str, Any]:
    """config.json; an override of None removes the key."""
    gemma = architecture in GEMMAS
    config: dict[str, Any] = {
        "architectures": [architecture],
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "gelu_pytorch_tanh" if gemma else "silu",
        "tie_word_embeddings": gemma,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if gemma or architecture == "Qwen3ForCausalLM":
        config["head_dim"] = 32
    if architecture == "Gemma2ForCausalLM":
        config |= {"sliding_window": 5, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
    if architecture == "Gemma3ForCausalLM":
        config |= {"sliding_window": 5, "sliding_window_pattern": 2, "rope_local_base_freq": 1000.0}
    if architecture in GEMMAS[1:]:
        config["query_pre_attn_scalar"] = 32
    if architecture == "SmolLM3ForCausalLM":
        config["no_rope_layers"] = [1, 1, 1, 0]
    if architecture == "Phi3ForCausalLM":
        config["sliding_window"] = None
    config |= overrides
    return {key: value for key, value in config.items() if value is not None or key == "sliding_window"}


def tiny_weights(config: Mapping[str, Any], n_vocab: int, seed: int = 5) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names, exact in bf16."""
    random = np.random.default_rng(seed)
    architecture = config["architectures"][0]
    n_embd, n_ff, n_heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim", n_embd // n_heads)
    n_q, n_kv = n_heads * size, config["num_key_value_heads"] * size
    found: dict[str, np.ndarray] = {}

    def put(name: str, *shape: int, mean: float = 0.0, scale: float = 1.5) -> None:
        spread = 0.2 if len(shape) == 1 else scale / np.sqrt(shape[-1])
        values = (mean + spread * random.standard_normal(shape)).astype(np.float32)
        found[name] = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)

    def norm(name: str, n: int = n_embd) -> None:
        put(name, n, mean=0.0 if architecture in GEMMAS else 1.0)

    put("model.embed_tokens.weight", n_vocab, n_embd, scale=8)
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        norm(f"{name}.input_layernorm.weight")
        norm(f"{name}.post_attention_layernorm.weight")
        if architecture in GEMMAS[1:]:
            norm(f"{name}.pre_feedforward_layernorm.weight")
            norm(f"{name}.post_feedforward_layernorm.weight")
        if architecture == "Phi3ForCausalLM":
            put(f"{name}.self_attn.qkv_proj.weight", n_q + 2 * n_kv, n_embd)
            put(f"{name}.mlp.gate_up_proj.weight", 2 * n_ff, n_embd)
        else:
            for part, rows in (("q", n_q), ("k", n_kv), ("v", n_kv)):
                put(f"{name}.self_attn.{part}_proj.weight", rows, n_embd)
                if architecture == "Qwen2ForCausalLM" or config.get("attention_bias"):
                    put(f"{name}.self_attn.{part}_proj.bias", rows)
            put(f"{name}.mlp.gate_proj.weight", n_ff, n_embd)
            put(f"{name}.mlp.up_proj.weight", n_ff, n_embd)
        if architecture in ("Qwen3ForCausalLM", "Gemma3ForCausalLM"):
            norm(f"{name}.self_attn.q_norm.weight", size)
            norm(f"{name}.self_attn.k_norm.weight", size)
        put(f"{name}.self_attn.o_proj.weight", n_embd, n_q)
        put(f"{name}.mlp.down_proj.weight", n_embd, n_ff)
    norm("model.norm.weight")
    if not config["tie_word_embeddings"]:
        put("lm_head.weight", n_vocab, n_embd, scale=3)
    return found


def tiny_folder(
    path: Path,
    architecture: str = "LlamaForCausalLM",
    *,
    tokenizer: dict[str, Any] | bytes | None = None,
    dtype: str = "F32",
    shards: int = 1,
    n_vocab: int = 0,
    **overrides: Any,
) -> Path:
    """
    Write a folder.

    Args:
        path: Where to; it is made.
        architecture: One of DECODERS.
        tokenizer: A tokenizer.json, or the bytes of a tokenizer.model.
        dtype: Of the weights.
        shards: In how many files.
        n_vocab: Rows of the embedding; 0: as the tokenizer needs.
        **overrides: Of config.json.
    """
    path.mkdir(parents=True)
    tokenizer = bpe_tokenizer() if tokenizer is None else tokenizer
    config: dict[str, Any] = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    if isinstance(tokenizer, bytes):
        (path / "tokenizer.model").write_bytes(tokenizer)
        config, n_vocab = {"chat_template": CHAT_TEMPLATE}, n_vocab or len(SPM_PIECES) + 2
    else:
        (path / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
        n_vocab = n_vocab or len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    (path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    settings = tiny_config(architecture, vocab_size=n_vocab, **overrides)
    (path / "config.json").write_text(json.dumps(settings), "utf-8")
    write_weights(path, tiny_weights(settings, n_vocab), dtype, shards)
    return path


def write_weights(path: Path, tensors: Mapping[str, np.ndarray], dtype: str = "F32", shards: int = 1) -> None:
    """model.safetensors, or its shards with their index."""
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors, dtype)
        return
    places = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        write_safetensors(path / file, {n: t for n, t in tensors.items() if places[n] == file}, dtype)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), "utf-8")


BERT_PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    ".",
    ",",
    "!",
    "hello",
    "world",
    "the",
    "##s",
    "##ing",
    "go",
]
BERT_PIECES += [prefix + letter for prefix in ("", "##") for letter in LETTERS if prefix + letter != "##s"]


def bert_folder(
    path: Path, *, pooling: str = "cls", architecture: str = "BertModel", pieces: Sequence[str] = BERT_PIECES
) -> Path:
    """A tiny BERT with a WordPiece vocabulary, as sentence-transformers keeps it."""
    path.mkdir(parents=True)
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "cls", "sep", "pad", "mask")}
    (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **names}), "utf-8")
    (path / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(modes), "utf-8")
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.models.Pooling"}]
    (path / "modules.json").write_text(json.dumps(modules), "utf-8")
    config = {
        "architectures": [architecture], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 64, "layer_norm_eps": 1e-12, "type_vocab_size": 2,
        "hidden_act": "gelu", "vocab_size": len(pieces), "id2label": {"0": "LABEL_0"},
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    write_safetensors(path / "model.safetensors", _bert_weights(config, architecture))
    return path


def _bert_weights(config: Mapping[str, Any], architecture: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    n_embd, n_ff = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], n_embd),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], n_embd),
        "embeddings.token_type_embeddings.weight": (2, n_embd),
        "embeddings.LayerNorm.gamma": (n_embd,),  # the old names of a norm's weight and bias
        "embeddings.LayerNorm.beta": (n_embd,),
        "pooler.dense.weight": (n_embd, n_embd),
        "pooler.dense.bias": (n_embd,),
    }
    for layer in range(config["num_hidden_layers"]):
        for part, rows, columns in (
            ("attention.self.query", n_embd, n_embd), ("attention.self.key", n_embd, n_embd),
            ("attention.self.value", n_embd, n_embd), ("attention.output.dense", n_embd, n_embd),
            ("intermediate.dense", n_ff, n_embd), ("output.dense", n_embd, n_ff),
            ("attention.output.LayerNorm", n_embd, 0), ("output.LayerNorm", n_embd, 0),
        ):  # fmt: skip
            name = f"encoder.layer.{layer}.{part}"
            shapes |= {f"{name}.weight": (rows, columns) if columns else (rows,), f"{name}.bias": (rows,)}
    prefix = ""
    if architecture == "BertForSequenceClassification":
        prefix = "bert."
    tensors = {}
    for name, shape in shapes.items():
        mean = 1.0 if "LayerNorm.weight" in name or name.endswith("gamma") else 0.0
        spread = 0.2 if len(shape) == 1 else 1.5 / np.sqrt(shape[-1])
        tensors[prefix + name] = (mean + spread * random.standard_normal(shape)).astype(np.float32)
    if prefix:
        tensors["classifier.weight"] = random.standard_normal((1, n_embd)).astype(np.float32)
        tensors["classifier.bias"] = random.standard_normal(1).astype(np.float32)
    tensors[prefix + "embeddings.position_ids"] = np.arange(config["max_position_embeddings"], dtype=np.int64)[None]
    return tensors
