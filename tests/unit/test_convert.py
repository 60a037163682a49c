"""edgellm.tools.convert: what it reads from a folder, what it writes, and what it says of folders it cannot convert."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import Tokenizer
from edgellm.errors import EdgellmError, FileError, FormatError, InvalidArgument, Unsupported
from edgellm.tools.diff import diff
from edgellm.tools.dump import dump
from edgellm.tools.gguf_file import GgufFile
from tests.support import hf_folder as hf
from tests.support.gguf_reader import read_gguf

gguf = pytest.importorskip("gguf")
from edgellm.tools.convert import convert, pretokenizers, sentencepiece  # noqa: E402
from edgellm.tools.convert.convert import Result  # noqa: E402

Make = Callable[..., Result]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make("Qwen3ForCausalLM", type_name="f16", **of_the_folder)``: a converted tiny folder."""

    def run(architecture: str = "LlamaForCausalLM", type_name: str = "f32", **options: Any) -> Result:
        folder = hf.tiny_folder(tmp_path / "folder", architecture, **options)
        return convert(folder, tmp_path / "model.gguf", type_name)

    return run


def keys_of(made: Result) -> dict[str, Any]:
    with GgufFile(made.path) as file:
        return {key: e.value() for key, e in file.entries.items()}


def source_of(folder: Path) -> dict[str, np.ndarray]:
    """The weights of a folder that `tiny_folder` wrote."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return hf.tiny_weights(config, config["vocab_size"])


def kinds_of(made: Result) -> dict[str, str]:
    return {t["name"]: t["type"] for t in dump(made.path)["tensors"]}


def edit(folder: Path, name: str, **changes: Any) -> None:
    found = json.loads((folder / name).read_text("utf-8")) | changes
    (folder / name).write_text(json.dumps({k: v for k, v in found.items() if v is not None}), "utf-8")


# ---- weights ----------------------------------------------------------------------------------


def test_llama_rows_become_pairs(make: Make, tmp_path: Path) -> None:
    made = make(attention_bias=True)
    tensors = read_gguf(made.path)[1]
    source = source_of(tmp_path / "folder")
    q = source["model.layers.1.self_attn.q_proj.weight"].reshape(4, 16, 64)
    actual = tensors["blk.1.attn_q.weight"].reshape(4, 16, 64)
    assert np.array_equal(actual[:, 0::2], q[:, :8])  # even rows: the first half of each head
    assert np.array_equal(actual[:, 1::2], q[:, 8:])
    bias = source["model.layers.1.self_attn.k_proj.bias"].reshape(2, 16)
    assert np.array_equal(tensors["blk.1.attn_k.bias"].reshape(2, 16)[:, 1::2], bias[:, 8:])
    assert np.array_equal(tensors["blk.1.attn_v.weight"], source["model.layers.1.self_attn.v_proj.weight"])


def test_types(tmp_path: Path) -> None:
    folder = hf.tiny_folder(tmp_path / "folder", "Qwen2ForCausalLM", dtype="BF16", intermediate_size=80)
    wanted = {"auto": "BF16", "f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
    for type_name, matrix in wanted.items():
        made = convert(folder, tmp_path / f"{type_name}.gguf", type_name)
        kinds = kinds_of(made)
        assert (made.type, kinds["token_embd.weight"], kinds["blk.0.attn_q.weight"]) == (matrix,) * 3
        assert {kinds["blk.0.attn_norm.weight"], kinds["blk.0.attn_q.bias"], kinds["output_norm.weight"]} == {"F32"}
        assert kinds["blk.0.ffn_down.weight"] == ("F16" if matrix == "Q8_0" else matrix)  # rows of 80 are not blocks
        assert keys_of(made)["general.file_type"] == {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}[matrix]
    assert diff(tmp_path / "auto.gguf", tmp_path / "bf16.gguf")["same"]
    exact = diff(tmp_path / "f32.gguf", tmp_path / "bf16.gguf")["tensors"]["changed"]
    assert len(exact) > 20
    assert not any("max_abs_diff" in t for t in exact)  # the same numbers
    far = diff(tmp_path / "f32.gguf", tmp_path / "q8_0.gguf")["tensors"]["changed"]
    assert 0 < max(t.get("max_abs_diff", 0) for t in far) < 0.05


def test_quantized_as_the_reference_does(make: Make, tmp_path: Path) -> None:
    made = make(type_name="q8_0")
    source = source_of(tmp_path / "folder")
    wanted = hf_q8_0(source["lm_head.weight"])
    with GgufFile(made.path) as file:
        tensor = next(t for t in file.tensors if t.name == "output.weight")
        assert b"".join(file.tensor_chunks(tensor)) == wanted


def hf_q8_0(array: np.ndarray) -> bytes:
    blocks = np.asarray(array, np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    scaled = blocks * inverse
    packed = np.empty(len(blocks), np.dtype([("d", "<f2"), ("q", "i1", 32)]))
    packed["d"] = scale[:, 0]
    packed["q"] = np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))  # halves away from 0, as roundf
    return packed.tobytes()


def test_shards_are_one_model(tmp_path: Path) -> None:
    for shards in (1, 3):
        folder = hf.tiny_folder(tmp_path / f"folder{shards}" / "same-name", shards=shards)
        convert(folder, tmp_path / f"{shards}.gguf", "f32")
    assert diff(tmp_path / "1.gguf", tmp_path / "3.gguf")["same"]


def test_a_weight_that_f16_cannot_hold(tmp_path: Path) -> None:
    folder = hf.tiny_folder(tmp_path / "folder")
    tensors = source_of(folder)
    tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = -70000
    hf.write_weights(folder, tensors)
    with pytest.raises(InvalidArgument, match=r"'blk.2.ffn_up.weight' has a weight of size 70000.*--type bf16"):
        convert(folder, tmp_path / "model.gguf", "f16")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]  # no half of a file
    convert(folder, tmp_path / "model.gguf", "bf16")


def test_gemma_norms_and_tied_embedding(make: Make, tmp_path: Path) -> None:
    made = make("Gemma3ForCausalLM", num_hidden_layers=2)
    metadata, tensors = read_gguf(made.path)
    source = source_of(tmp_path / "folder")
    assert np.array_equal(tensors["blk.0.attn_q_norm.weight"], source["model.layers.0.self_attn.q_norm.weight"] + 1)
    assert np.array_equal(tensors["output_norm.weight"], source["model.norm.weight"] + 1)
    assert "output.weight" not in tensors
    assert (metadata["gemma3.attention.sliding_window"], metadata["gemma3.attention.sliding_window_pattern"]) == (5, 2)
    assert metadata["gemma3.rope.freq_base_swa"] == 1000


# ---- numbers ----------------------------------------------------------------------------------


def test_rope_keys(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 16}
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "yarn": (yarn, {"type": "yarn", "factor": 4, "original_context_length": 128, "yarn_beta_fast": 16}),
        "older": ({"type": "linear", "factor": 2.0}, {"type": "linear", "factor": 2}),
    }
    for name, (scaling, wanted) in cases.items():
        folder = hf.tiny_folder(tmp_path / name, "Qwen2ForCausalLM", rope_scaling=scaling)
        keys = keys_of(convert(folder, tmp_path / f"{name}.gguf"))
        prefix = "qwen2.rope.scaling."
        assert {k.removeprefix(prefix): v for k, v in keys.items() if k.startswith(prefix)} == wanted
    folder = hf.tiny_folder(
        tmp_path / "new",
        "Qwen3ForCausalLM",
        rope_theta=None,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )
    assert keys_of(convert(folder, tmp_path / "new.gguf"))["qwen3.rope.freq_base"] == 5e5
    folder = hf.tiny_folder(tmp_path / "dynamic", rope_scaling={"type": "dynamic", "factor": 2.0})
    assert "dynamic rope scaling is left out" in convert(folder, tmp_path / "d.gguf").warnings[0]
    folder = hf.tiny_folder(tmp_path / "mistral", "MistralForCausalLM", sliding_window=64)
    assert "sliding window of 64" in convert(folder, tmp_path / "m.gguf").warnings[0]


def test_a_model_that_also_sees(tmp_path: Path) -> None:
    """Gemma 3's larger folders: the text model's numbers are inside, its tensors have a prefix, others are left out."""
    folder = hf.tiny_folder(tmp_path / "folder", "Gemma3ForCausalLM")
    wanted = convert(folder, tmp_path / "text.gguf", "f32")
    config = json.loads((folder / "config.json").read_text())
    tensors = {f"language_model.{name}": t for name, t in source_of(folder).items()}
    text = {k: v for k, v in config.items() if k != "architectures"}
    whole = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": text,
        "vision_config": {"hidden_size": 9},
    }
    (folder / "config.json").write_text(json.dumps(whole))
    tensors["vision_tower.vision_model.head.weight"] = np.zeros((2, 2), np.float32)
    tensors["multi_modal_projector.mm_soft_emb_norm.weight"] = np.zeros(2, np.float32)
    hf.write_weights(folder, tensors)
    made = convert(folder, tmp_path / "seeing.gguf", "f32")
    assert diff(wanted.path, made.path)["same"]


# ---- tokenizers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regex", "model", "name"),
    [
        (hf.QWEN2, {}, "qwen2"),
        (hf.LLAMA3, {"ignore_merges": True}, "llama-bpe"),
        (hf.LLAMA3, {}, "smaug-bpe"),
        (hf.LLAMA3.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"),
         {"ignore_merges": True}, "llama-bpe"),
        (None, {}, "smollm"),
        (pretokenizers.GPT4O, {}, "gpt-4o"),
        (pretokenizers.TEKKEN, {"ignore_merges": True}, "tekken"),
        (pretokenizers.QWEN35, {}, "qwen35"),
    ],
)  # fmt: skip
def test_pre_tokenizers(regex: str | None, model: dict[str, Any], name: str) -> None:
    assert pretokenizers.recognise(hf.bpe_tokenizer(regex, **model)) == name


def test_other_pre_tokenizers() -> None:
    assert pretokenizers.recognise({"pre_tokenizer": {"type": "ByteLevel"}}) == "gpt-2"
    splits = [{"type": "Split", "pattern": {"Regex": regex}} for regex in pretokenizers.DEEPSEEK3]
    byte_level = {"type": "ByteLevel", "use_regex": False}
    assert pretokenizers.recognise({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]}}) == (
        "deepseek-v3"
    )
    for pre in (None, {"type": "Whitespace"}, {"type": "Split", "pattern": {"Regex": "a+"}}):
        with pytest.raises(Unsupported, match=r"no known pre-tokenizer does.*--pre NAME"):
            pretokenizers.recognise({"pre_tokenizer": pre})


def test_an_unknown_pre_tokenizer_can_be_named(tmp_path: Path) -> None:
    folder = hf.tiny_folder(tmp_path / "folder", tokenizer=hf.bpe_tokenizer(r"\w+"))
    with pytest.raises(Unsupported, match=r"\(\\w\+\)"):
        convert(folder, tmp_path / "a.gguf")
    keys = keys_of(convert(folder, tmp_path / "a.gguf", pre="qwen2"))
    assert keys["tokenizer.ggml.pre"] == "qwen2"


def test_bpe_keys(make: Make) -> None:
    tokenizer = hf.bpe_tokenizer()
    n = len(tokenizer["model"]["vocab"]) + 3
    tokenizer["added_tokens"] += [
        {"id": n, "content": "<tool>", "special": False},
        {"id": n + 1, "content": "<|looks_special|>", "special": False},
    ]
    made = make("Qwen2ForCausalLM", tokenizer=tokenizer)
    keys = keys_of(made)
    assert keys["tokenizer.ggml.tokens"][:4] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", hf.byte_letters()[0]]
    assert keys["tokenizer.ggml.tokens"][n] == "<tool>"
    types = keys["tokenizer.ggml.token_type"]
    assert (types[:4], types[n:]) == ([3, 3, 3, 1], [4, 3])
    assert keys["tokenizer.ggml.merges"][:2] == ["Ġ t", "h e"]
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert keys["tokenizer.chat_template"] == hf.CHAT_TEMPLATE
    assert made.tokenizer == f"gpt2 (qwen2), {n + 2} tokens"
    assert Tokenizer(made.path).encode("a<tool>b", parse_special=True)[1] == n


def test_added_tokens_beyond_the_embedding_are_left_out(make: Make) -> None:
    tokenizer = hf.bpe_tokenizer()
    n = len(tokenizer["model"]["vocab"]) + 3
    tokenizer["added_tokens"].append({"id": n, "content": "<image>", "special": True})
    made = make(tokenizer=tokenizer, n_vocab=n)
    assert made.warnings == ["tokens beyond the embedding are left out: 1, like '<image>'"]
    keys = keys_of(made)
    assert len(keys["tokenizer.ggml.tokens"]) == keys["llama.vocab_size"] == n


def test_sentencepiece_keys(make: Make) -> None:
    made = make(tokenizer=hf.spm_model())
    keys = keys_of(made)
    assert (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.add_space_prefix"]) == ("llama", True)
    n = len(hf.SPM_PIECES)
    assert keys["tokenizer.ggml.tokens"][n:] == [f"[PAD{n}]", f"[PAD{n + 1}]"]  # the embedding has two more rows
    assert keys["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    assert keys["tokenizer.ggml.token_type"][n:] == [5, 5]
    assert keys["tokenizer.ggml.scores"][259:262] == [0.0, -1.0, -2.0]
    tokenizer = Tokenizer(made.path)
    ids = tokenizer.encode("the cab", add_special=False)
    assert [keys["tokenizer.ggml.tokens"][i] for i in ids] == ["\u2581the", "\u2581", "c", "a", "b"]


def test_sentencepiece_from_tokenizer_json(tmp_path: Path) -> None:
    """Merges instead of scores: the same ids, and a byte for what has no token."""
    pieces = [text for text, _, kind in hf.SPM_PIECES if kind != 4]
    spm = {
        "added_tokens": [{"id": i, "content": pieces[i], "special": True} for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}]},
        "model": {
            "type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": {t: i for i, t in enumerate(pieces)},
            "merges": ["\u2581 t", ["h", "e"], "\u2581t he"],
        },
    }  # fmt: skip
    made = convert(hf.tiny_folder(tmp_path / "folder", tokenizer=spm), tmp_path / "model.gguf")
    keys = keys_of(made)
    assert keys["tokenizer.ggml.add_space_prefix"] is True
    ids = Tokenizer(made.path).encode("the cab Z", add_special=False)
    texts = [keys["tokenizer.ggml.tokens"][i] for i in ids]
    assert texts == ["\u2581the", "\u2581", "c", "a", "b", "\u2581", "<0x5A>"]


def test_damaged_sentencepiece_files() -> None:
    whole = hf.spm_model()
    assert len(sentencepiece.parse(whole).pieces) == len(hf.SPM_PIECES)
    random = np.random.default_rng(2)
    for data in (b"", b"\xff" * 30, b"\x0a\xff\xff\xff\xff\x0f", b"hello", hf.proto(1, hf.proto(3, 9)), hf.proto(1, 5)):
        with pytest.raises(FormatError, match=r"tokenizer\.model"):
            sentencepiece.parse(data)
    for _ in range(300):
        data = bytearray(whole)
        for at in random.integers(0, len(data), 3):
            data[at] = random.integers(0, 256)
        with contextlib.suppress(FormatError):
            sentencepiece.parse(bytes(data[: random.integers(1, len(data))]))


def test_bert_keys(tmp_path: Path) -> None:
    made = convert(hf.bert_folder(tmp_path / "folder", pooling="mean"), tmp_path / "model.gguf", "f16")
    assert made.warnings == []
    keys, kinds = keys_of(made), kinds_of(made)
    assert keys["tokenizer.ggml.tokens"][:15] == [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2581.", "\u2581,", "\u2581!", "\u2581hello", "\u2581world",
        "\u2581the", "s", "ing", "\u2581go", "\u2581a",
    ]  # fmt: skip
    assert keys["tokenizer.ggml.token_type"][:6] == [3, 3, 3, 3, 3, 1]
    wanted = {"bos": 2, "eos": 3, "unknown": 1, "seperator": 3, "padding": 0, "mask": 4}
    assert {k: keys[f"tokenizer.ggml.{k}_token_id"] for k in wanted} == wanted
    assert (keys["bert.pooling_type"], keys["bert.attention.causal"], keys["tokenizer.ggml.token_type_count"]) == (
        1, False, 2,
    )  # fmt: skip
    assert (kinds["position_embd.weight"], kinds["token_types.weight"], kinds["token_embd.weight"]) == (
        "F32", "F32", "F16",
    )  # fmt: skip
    assert not any("pooler" in name or "position_ids" in name for name in kinds)
    edit(tmp_path / "folder", "tokenizer_config.json", do_lower_case=False)
    (tmp_path / "folder" / "modules.json").unlink()
    made = convert(tmp_path / "folder", tmp_path / "cased.gguf")
    assert keys_of(made)["tokenizer.ggml.normalizer.lowercase"] is False
    assert "does not say how to pool" in made.warnings[0]


def test_a_reranker_keeps_its_pooler(tmp_path: Path) -> None:
    folder = hf.bert_folder(tmp_path / "folder", architecture="BertForSequenceClassification")
    made = convert(folder, tmp_path / "model.gguf", "f32")
    assert keys_of(made)["bert.pooling_type"] == 4
    assert {"cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias"} <= set(kinds_of(made))


# ---- what is wrong ------------------------------------------------------------------------------


def wreck(name: str, folder: Path) -> None:
    """Do one kind of damage."""
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])

    def write_header(changed: Any) -> None:
        text = json.dumps(changed).encode()
        weights.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    entry = header["model.norm.weight"]
    actions: dict[str, Callable[[], Any]] = {
        "architecture": lambda: edit(folder, "config.json", architectures=["MambaForCausalLM"]),
        "no architecture": lambda: edit(folder, "config.json", architectures=[]),
        "no config": lambda: (folder / "config.json").unlink(),
        "config not json": lambda: (folder / "config.json").write_text("{"),
        "config a list": lambda: (folder / "config.json").write_text("[]"),
        "no hidden size": lambda: edit(folder, "config.json", hidden_size=None),
        "text for a number": lambda: edit(folder, "config.json", hidden_size="64"),
        "fraction": lambda: edit(folder, "config.json", num_hidden_layers=1.5),
        "heads": lambda: edit(folder, "config.json", num_key_value_heads=3),
        "activation": lambda: edit(folder, "config.json", hidden_act="relu"),
        "rope": lambda: edit(folder, "config.json", rope_scaling={"rope_type": "spiral"}),
        "rope text": lambda: edit(folder, "config.json", rope_scaling="yarn"),
        "rope factor": lambda: edit(folder, "config.json", rope_scaling={"type": "linear", "factor": "x"}),
        "layers": lambda: edit(folder, "config.json", num_hidden_layers=5),
        "fewer layers": lambda: edit(folder, "config.json", num_hidden_layers=3),
        "vocabulary": lambda: hf.write_weights(folder, hf.tiny_weights(hf.tiny_config("LlamaForCausalLM"), 200)),
        "no weights": weights.unlink,
        "pytorch": lambda: weights.rename(folder / "pytorch_model.bin"),
        "empty": lambda: weights.write_bytes(b""),
        "cut": lambda: weights.write_bytes(data[:-100]),
        "cut header": lambda: weights.write_bytes(data[:100]),
        "header not json": lambda: weights.write_bytes(data[:8] + b"x" + data[9:]),
        "header a list": lambda: write_header([1]),
        "header huge": lambda: weights.write_bytes(struct.pack("<Q", 1 << 63) + data[8:]),
        "entry": lambda: write_header(header | {"model.norm.weight": {"dtype": "F32"}}),
        "offsets": lambda: write_header(header | {"model.norm.weight": entry | {"data_offsets": [0, 1 << 60]}}),
        "negative": lambda: write_header(header | {"model.norm.weight": entry | {"data_offsets": [-4, 252]}}),
        "shape": lambda: write_header(header | {"model.norm.weight": entry | {"shape": [65]}}),
        "fp8": lambda: write_header(header | {"model.norm.weight": entry | {"dtype": "F8_E4M3"}}),
        "integers": lambda: write_header(header | {"model.norm.weight": entry | {"dtype": "I32"}}),
        "stranger": lambda: write_header({k.replace("model.norm.", "model.extra."): v for k, v in header.items()}),
        "missing tensor": lambda: write_header({k: v for k, v in header.items() if "layers.2.mlp.up" not in k}),
        "no head": lambda: write_header({k: v for k, v in header.items() if k != "lm_head.weight"}),
        "no tokenizer": lambda: (folder / "tokenizer.json").unlink(),
        "unigram": lambda: edit(folder, "tokenizer.json", model={"type": "Unigram", "vocab": []}),
        "no merges": lambda: edit(folder, "tokenizer.json", model=hf.bpe_tokenizer()["model"] | {"merges": []}),
        "token id": lambda: edit(folder, "tokenizer.json", model=hf.bpe_tokenizer()["model"] | {"vocab": {"a": -1}}),
        "added token": lambda: edit(folder, "tokenizer.json", added_tokens=[{"content": "x"}]),
    }
    actions[name]()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("architecture", Unsupported, r"MambaForCausalLM is not among .* LlamaForCausalLM"),
        ("no architecture", FormatError, r"names no model class"),
        ("no config", FileError, r"has no config.json"),
        ("config not json", FormatError, r"config.json is not JSON"),
        ("config a list", FormatError, r"config.json is not a JSON object"),
        ("no hidden size", FormatError, r"config.json has no 'hidden_size'"),
        ("text for a number", FormatError, r"hidden_size is '64', it must be a number"),
        ("fraction", FormatError, r"num_hidden_layers is 1.5, it must be a whole number"),
        ("heads", FormatError, r"4 heads cannot share 3 key-value heads"),
        ("activation", Unsupported, r"activation is 'relu'.*computes 'silu'"),
        ("rope", Unsupported, r"rope scaling 'spiral' is not known"),
        ("rope text", FormatError, r"rope parameters are 'yarn'"),
        ("rope factor", FormatError, r"factor of the rope scaling is 'x'"),
        ("layers", FormatError, r"layer 4 of 5 has not 'attn_k.weight'"),
        (
            "fewer layers",
            Unsupported,
            r"'model.layers.3.input_layernorm.weight' has no place in a llama model of 3 layers",
        ),
        ("vocabulary", FormatError, r"gives token '.*' the id \d+, the embedding has 200 rows"),
        ("no weights", InvalidArgument, r"no weights in \*.safetensors"),
        ("pytorch", InvalidArgument, r"only pytorch_model.bin"),
        ("empty", FormatError, r"is no safetensors file"),
        ("cut", FormatError, r"download is not complete, or the file is damaged"),
        ("cut header", FormatError, r"download is not complete: its header claims"),
        ("header not json", FormatError, r"the header is not JSON"),
        ("header a list", FormatError, r"the header is not a JSON object"),
        ("header huge", FormatError, r"its header claims 9223372036854775808"),
        ("entry", FormatError, r"entry of tensor 'model.norm.weight' is damaged"),
        ("offsets", FormatError, r"entry of tensor 'model.norm.weight' is damaged"),
        ("negative", FormatError, r"entry of tensor 'model.norm.weight' is damaged"),
        ("shape", FormatError, r"shape \[65\] needs 260 bytes and has 256"),
        ("fp8", Unsupported, r"has the type F8_E4M3"),
        ("integers", Unsupported, r"has the type I32: the folder is quantized"),
        ("stranger", Unsupported, r"'model.extra.weight' has no place"),
        ("missing tensor", FormatError, r"layer 2 of 4 has not 'ffn_up.weight'"),
        ("no head", FormatError, r"no lm_head.weight"),
        ("no tokenizer", FileError, r"has no tokenizer"),
        ("unigram", Unsupported, r"tokenizer of type Unigram"),
        ("no merges", FormatError, r"has no merges"),
        ("token id", FormatError, r"gives token 'a' the id -1"),
        ("added token", FormatError, r"damaged entry of an added token"),
    ],
)
def test_one_sentence_says_what_is_wrong(name: str, error: type[EdgellmError], words: str, tmp_path: Path) -> None:
    folder = hf.tiny_folder(tmp_path / "folder")
    wreck(name, folder)
    with pytest.raises(error, match=words):
        convert(folder, tmp_path / "model.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def junk(value: Any, random: np.random.Generator) -> Any:
    """*value* with one thing in it that does not belong there."""
    odd = [None, -1, 0, 1.5, 1 << 70, "x", "", [], {}, [1, "a"], {"a": 1}, True]
    inner = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    if not inner or random.random() < 0.1:
        return odd[random.integers(len(odd))]
    at = inner[random.integers(len(inner))]
    changed = value.copy()
    changed[at] = junk(value[at], random)
    return changed


@pytest.mark.parametrize("seed", range(6))
def test_no_junk_in_json_does_worse_than_an_error(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    architecture = ["Gemma3ForCausalLM", "Phi3ForCausalLM", "LlamaForCausalLM", "SmolLM3ForCausalLM"][seed % 4]
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    folder = hf.tiny_folder(tmp_path / "folder", architecture, num_hidden_layers=1, rope_scaling=rope)
    bert = hf.bert_folder(tmp_path / "bert")
    files = [folder / n for n in ("config.json", "tokenizer.json", "tokenizer_config.json")]
    files += [bert / n for n in ("config.json", "modules.json", "1_Pooling/config.json", "tokenizer_config.json")]
    for file in files:
        sound = json.loads(file.read_text("utf-8"))
        for _ in range(12):
            file.write_text(json.dumps(junk(sound, random)), "utf-8")
            with contextlib.suppress(EdgellmError):
                convert(bert if bert in file.parents else folder, tmp_path / "out.gguf", force=True)
        file.write_text(json.dumps(sound), "utf-8")


def test_missing_shards(tmp_path: Path) -> None:
    folder = hf.tiny_folder(tmp_path / "folder", shards=3)
    (folder / "model-00002-of-00003.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(FileError, match=r"1 of 3 weight files are missing, the first is model-00002-of-00003"):
        convert(folder, tmp_path / "a.gguf")
    hf.write_safetensors(folder / "model-00002-of-00003.safetensors", {})
    with pytest.raises(FormatError, match=r"has no tensor 'model.*', which model.safetensors.index.json places there"):
        convert(folder, tmp_path / "a.gguf")
    edit(folder, "model.safetensors.index.json", weight_map={"x": "../elsewhere"})
    with pytest.raises(FileError, match="missing"):
        convert(folder, tmp_path / "a.gguf")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(FileError, match=r"has 3 weight files but no model.safetensors.index.json"):
        convert(folder, tmp_path / "a.gguf")


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix of 64 MB goes through in pieces: the copies made of it stay below a tenth of it."""
    import tracemalloc

    from edgellm.tools.convert import weights
    from edgellm.tools.convert.safetensors import Tensor

    monkeypatch.setattr(weights, "STEP", 1 << 18)
    data = np.zeros((1 << 13, 1 << 11), np.float32)
    planned = weights.Planned("x.weight", "Q8_0", Tensor("x", "F32", data.shape, data.reshape(-1)))
    tracemalloc.start()
    total = sum(len(chunk) for chunk in planned.chunks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == planned.n_bytes == data.size // 32 * 34
    assert peak < data.nbytes / 10
