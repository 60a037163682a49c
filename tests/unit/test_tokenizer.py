"""
Tokenizer against recorded ids of many vocabularies, and small vocabularies made here.

Run as a program it writes recorded ids in the form that tests/c/test_tokenizer.c reads::

    PYTHONPATH=. python tests/unit/test_tokenizer.py ../shared/data/vocab/gpt-2.json.gz gpt-2.vectors
"""

from __future__ import annotations

import gzip
import json
import lzma
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm import Tokenizer
from edgellm.errors import FormatError, InvalidArgument, Unsupported
from tests.support.gguf_writer import TYPE_F32, TYPE_I32, TYPE_STR, TYPE_U8, U32, Arr, Bool, Str, write_gguf
from tests.support.vocabularies import KINDS, Metadata

# Recorded with llama.cpp: ids with and without special tokens (added and parsed), and the bytes the latter give back.
VOCABULARIES = [
    "bert-bge",
    "command-r",
    "deepseek-llm",
    "falcon",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "phi-3",
    "qwen2",
    "starcoder",
]
MODELS = {"smollm2-135m-instruct-q4_1": "smollm2", "gemma3-270m-q4_k_m": "gemma3:270m"}
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def recorded(shared: Path, name: str) -> list[dict[str, Any]]:
    """The strings of a vocabulary with what they became."""
    with gzip.open(shared / "data" / "vocab" / f"{name}.json.gz") as file:
        cases: list[dict[str, Any]] = json.load(file)
    return cases


def check(tokenizer: Tokenizer, cases: list[dict[str, Any]]) -> None:
    """All ids and bytes are as recorded."""
    assert len(cases) > 300
    for case in cases:
        text = case["text"]
        assert tokenizer.encode(text) == case["ids"], text
        assert tokenizer.encode(text, add_special=True, parse_special=True) == case["ids_with_special"], text
        assert tokenizer.decode(case["ids"]).hex() == case["detokenized_hex"], text


@pytest.fixture(scope="session")
def vocabulary(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpack a vocabulary once."""
    folder = tmp_path_factory.mktemp("vocab")

    def unpack(name: str) -> Path:
        path = folder / f"{name}.gguf"
        if not path.exists():
            path.write_bytes(lzma.decompress((shared / "data" / "vocab" / f"{name}.gguf.xz").read_bytes()))
        return path

    return unpack


# ---- recorded ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VOCABULARIES)
def test_recorded_ids(name: str, shared: Path, vocabulary: Callable[[str], Path]) -> None:
    with Tokenizer(vocabulary(name)) as tokenizer:
        check(tokenizer, recorded(shared, name))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_recorded_ids_of_models(name: str, shared: Path, real_model: Callable[[str], Path]) -> None:
    with Tokenizer(real_model(MODELS[name])) as tokenizer:
        check(tokenizer, recorded(shared, name))


# What each vocabulary ends a generation with, as llama.cpp says (llama_vocab_is_eog over all ids).
ENDS = {
    "deepseek-llm": ["<｜end▁of▁sentence｜>"],
    "falcon": ["<|endoftext|>"],
    "llama-bpe": ["<|end_of_text|>", "<|eot_id|>"],
    "llama-spm": ["</s>"],
    "phi-3": ["</s>", "<|endoftext|>", "<|end|>"],
    "qwen2": ["</s>", "<|endoftext|>", "<|im_end|>"],
}


@pytest.mark.parametrize("name", sorted(ENDS))
def test_ends(name: str, vocabulary: Callable[[str], Path]) -> None:
    with Tokenizer(vocabulary(name)) as tokenizer:
        ends = [tokenizer.token(i).decode() for i in range(tokenizer.n_tokens) if tokenizer.is_eog(i)]
    assert ends == ENDS[name]


def test_ends_of_a_chat_model(real_model: Callable[[str], Path]) -> None:
    with Tokenizer(real_model("smollm2")) as tokenizer:
        ends = {tokenizer.token(i) for i in range(tokenizer.n_tokens) if tokenizer.is_eog(i)}
        assert {b"<|im_end|>", b"<|endoftext|>"} <= ends
        assert tokenizer.token(tokenizer.eot or 0) == b"<|im_end|>"


@pytest.mark.parametrize("name", VOCABULARIES)
def test_random_bytes(name: str, vocabulary: Callable[[str], Path]) -> None:
    """Bytes that are no text: never an error, in time that grows with them."""
    noise = random.Random(7).randbytes(200_000)
    with Tokenizer(vocabulary(name)) as tokenizer:
        start = time.process_time()
        ids = tokenizer.encode(noise)
        assert time.process_time() - start < 5
        text_ids = (i for i in ids[:10_000] if i != tokenizer.unk)
        assert all(0 <= i < tokenizer.n_tokens and not tokenizer.is_control(i) for i in text_ids)
        if name == "llama-spm":  # byte tokens: nothing is lost
            assert tokenizer.decode(ids) == noise


@pytest.mark.parametrize("unit", ["a", "ab ", " ", "\n", "<", "字"])
@pytest.mark.parametrize("name", ["deepseek-llm", "llama-bpe", "llama-spm"])
def test_long_words(name: str, unit: str, vocabulary: Callable[[str], Path]) -> None:
    text = unit * 300_000
    with Tokenizer(vocabulary(name)) as tokenizer:
        start = time.process_time()
        ids = tokenizer.encode(text)
        assert time.process_time() - start < 10  # 0.1 to 1 s; a square of it would be hours
        assert tokenizer.decode(ids) == text.encode()


def test_largest_vocabulary_loads_quickly(real_model: Callable[[str], Path]) -> None:
    """262,144 tokens, best of five: 20 ms where this was written; 40 are allowed on a machine at rest."""
    path = real_model("gemma3:270m")
    times = []
    for _ in range(5):
        start = time.process_time()
        Tokenizer(path).close()
        times.append(time.process_time() - start)
    assert min(times) < 0.100, times  # room for busy machines


SMALL = Path(__file__).parents[1] / "data" / "vocab_small"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_recorded_ids_of_small_vocabularies(kind: str, tmp_path: Path) -> None:
    """Recorded with llama.cpp by tests/data/vocab_small/record.py."""
    from tools.parity_vocab import compare

    row = compare(kind, write_gguf(tmp_path / "vocab.gguf", KINDS[kind]()), SMALL / f"{kind}.json.gz")
    assert row.verdict == "pass" and row.strings > 300, row


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_small_vocabularies_take_any_bytes(kind: str, tmp_path: Path) -> None:
    noise = random.Random(8).randbytes(50_000)
    with Tokenizer(write_gguf(tmp_path / "vocab.gguf", KINDS[kind]())) as tokenizer:
        ids = tokenizer.encode(noise)
        assert all(0 <= i < tokenizer.n_tokens and not tokenizer.is_control(i) for i in ids if i != tokenizer.unk)
        if kind in ("rwkv", "plamo2"):  # bytes have tokens: nothing is lost
            assert tokenizer.decode(ids) == noise
        spelled = ["<|begin|>", "<|plamo:eos|>", "[CLS]", "</s>", "<mask>"]
        for text in spelled:  # what users write is never a control token, also where a trie would find it
            assert not any(tokenizer.is_control(i) and i != tokenizer.unk for i in tokenizer.encode(text))


@pytest.mark.parametrize(
    ("kind", "changed", "error", "pattern"),
    [
        ("unigram-t5", {"scores": None}, FormatError, r"scores is missing"),
        ("unigram-xlmr", {"precompiled_charsmap": Arr(TYPE_U8, [255, 0, 0, 0, 1])}, FormatError, r"charsmap.*of 255"),
        ("unigram-xlmr", {"precompiled_charsmap": U32(3)}, FormatError, r"charsmap must be an array of bytes"),
        ("unigram-xlmr", {"precompiled_charsmap": Arr(TYPE_I32, [3])}, FormatError, r"must be an array of bytes"),
        ("wordpiece", {"normalizer.lowercase": Str("yes")}, FormatError, r"normalizer\.lowercase"),
        ("wordpiece", {"cls_token_id": U32(9999)}, FormatError, r"cls_token_id is 9999"),
        ("plamo2", {"model": Str("plamo3")}, Unsupported, r"'plamo3'.*plamo2"),
        ("whitespace", {"merges": None}, FormatError, r"merges is missing"),
    ],
)
def test_damaged_small_vocabulary(
    kind: str, changed: Metadata, error: type[Exception], pattern: str, tmp_path: Path
) -> None:
    metadata = KINDS[kind]() | {f"tokenizer.ggml.{key}": value for key, value in changed.items()}
    kept = {key: value for key, value in metadata.items() if value is not None}
    with pytest.raises(error, match=pattern):
        open_made(tmp_path, kept).close()


def test_a_missing_byte_of_plamo2_is_named(tmp_path: Path) -> None:
    metadata = KINDS["plamo2"]()
    tokens = metadata["tokenizer.ggml.tokens"].value
    tokens[tokens.index("<0x25>")] = "<25>"
    tokens[tokens.index("%") if "%" in tokens else 0] = "percent"
    with pytest.raises(FormatError, match="<0x25>"):
        open_made(tmp_path, metadata).close()


# ---- made here ---------------------------------------------------------------------------------------------------


def byte_alphabet() -> list[str]:
    """GPT-2's letter for each byte: printable Latin-1 as it is, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        letters.setdefault(byte, chr(0x100 + len(letters) - len(plain)))
    return [letters[byte] for byte in range(256)]


WORDS = ["he", "ll", "hell", "hello", "Ġhello", "<|im_end|>", "<tag>", "<s>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello"]


def bpe(**changed: Any) -> dict[str, Any]:
    """Metadata of a vocabulary: 256 bytes and WORDS; None removes a key."""
    kinds = [NORMAL] * (256 + 5) + [CONTROL, USER, CONTROL]
    keys = {
        "general.architecture": Str("llama"),
        "tokenizer.ggml.model": Str("gpt2"),
        "tokenizer.ggml.pre": Str("smollm"),
        "tokenizer.ggml.tokens": Arr(TYPE_STR, [*byte_alphabet(), *WORDS]),
        "tokenizer.ggml.token_type": Arr(TYPE_I32, kinds),
        "tokenizer.ggml.merges": Arr(TYPE_STR, MERGES),
        "tokenizer.ggml.bos_token_id": U32(263),
    }
    keys.update({f"tokenizer.ggml.{key}": value for key, value in changed.items()})
    return {key: value for key, value in keys.items() if value is not None}


def open_made(path: Path, metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer(write_gguf(path / "vocab.gguf", metadata))


def test_made_bpe(tmp_path: Path) -> None:
    with open_made(tmp_path, bpe()) as tokenizer:
        assert tokenizer.n_tokens == 264
        assert tokenizer.encode("") == []
        assert tokenizer.encode("hello hello") == [259, 260]
        assert tokenizer.encode("hello <|im_end|>")[-1] == ord(">")
        assert tokenizer.encode("hello<|im_end|>", parse_special=True) == [259, 261]
        assert tokenizer.encode("<tag>he") == [262, 256]
        assert tokenizer.encode("he", add_special=True) == [256]
        assert tokenizer.decode([260, 261]) == b" hello"
        assert tokenizer.decode([260, 261], keep_special=True) == b" hello<|im_end|>"
        assert (tokenizer.bos, tokenizer.eot, tokenizer.eos) == (263, 261, None)
        assert tokenizer.is_eog(261) and not tokenizer.is_eog(263)
        assert tokenizer.token(260) == "Ġhello".encode()
        with pytest.raises(InvalidArgument, match="264"):
            tokenizer.decode([264])


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "smollm"])
def test_words_seen_before_change_nothing(pre: str, tmp_path: Path) -> None:
    """A long text remembers its words; short ones do not. Lines of words are independent of each other."""
    rng = random.Random(6)
    words = ["hello", "hell", "he", "ll", "helloo", "o", "hellohellohello", "été", "12", "he" * 40]
    lines = ["x " + " ".join(rng.choice(words) for _ in range(rng.randint(1, 30))) + "\n" for _ in range(300)]
    with open_made(tmp_path, bpe(pre=Str(pre))) as tokenizer:
        assert tokenizer.encode("".join(lines)) == [i for line in lines for i in tokenizer.encode(line)]


def test_every_byte_comes_back(tmp_path: Path) -> None:
    noise = bytes(range(256)) + random.Random(3).randbytes(5000)
    with open_made(tmp_path, bpe()) as tokenizer:
        assert tokenizer.decode(tokenizer.encode(noise)) == noise


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("ab", [263, 261]),  # the blank put before joins first
        ("bab ab", [259, 261, 262, 263, 261]),
        ("é", [259, 3 + 0xC3, 3 + 0xA9]),
        ("<u>a", [264, 263]),
        ("<s>", [259, 3 + ord("<"), 3 + ord("s"), 3 + ord(">")]),
        ("<0x0A>", [259, *(3 + ord(c) for c in "<0x0A>")]),
    ],
)
def test_made_sentencepiece(text: str, ids: list[int], tmp_path: Path) -> None:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "ab", "▁a", "<u>"]
    metadata = {
        "tokenizer.ggml.model": Str("llama"),
        "tokenizer.ggml.tokens": Arr(TYPE_STR, pieces),
        "tokenizer.ggml.scores": Arr(TYPE_F32, [0.0] * 259 + [-9.0, -8.0, -7.0, -2.0, -1.0, 0.0]),
        "tokenizer.ggml.token_type": Arr(TYPE_I32, [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * 5, USER]),
    }
    with open_made(tmp_path, metadata) as tokenizer:
        assert tokenizer.encode(text) == ids
        assert tokenizer.encode(text, add_special=True) == [1, *ids]
        if "<u>" not in text:  # the text after a special token gets a blank of its own
            assert tokenizer.decode([1, *ids]) == text.encode()


def test_dummy_tokenizer_has_no_text(tmp_path: Path) -> None:
    names = [f"t{i}" for i in range(128)]
    metadata = {"tokenizer.ggml.model": Str("test"), "tokenizer.ggml.tokens": Arr(TYPE_STR, names)}
    with open_made(tmp_path, metadata) as tokenizer:
        assert tokenizer.n_tokens == 128
        assert not any(tokenizer.is_eog(i) for i in range(128))
        with pytest.raises(Unsupported, match="'test'"):
            tokenizer.encode("a")
        with pytest.raises(Unsupported, match="'test'"):
            tokenizer.decode([1])


@pytest.mark.parametrize(
    ("changed", "error", "pattern"),
    [
        ({"model": None}, FormatError, r"no tokenizer\.ggml\.model"),
        ({"model": Str("plamo9")}, Unsupported, r"'plamo9'.*gpt2"),
        ({"model": U32(1)}, FormatError, r"tokenizer\.ggml\.model"),
        ({"pre": Str("qwen3")}, Unsupported, r"'qwen3'.*'qwen2'"),
        ({"tokens": None, "token_type": None, "bos_token_id": None}, FormatError, r"tokens is empty"),
        ({"tokens": Arr(TYPE_I32, [1])}, FormatError, r"tokens must be an array of strings"),
        ({"token_type": Arr(TYPE_I32, [1])}, FormatError, r"token_type has 1 items for 264 tokens"),
        ({"token_type": Arr(TYPE_F32, [1.0] * 264)}, FormatError, r"token_type must be an array of 32-bit integers"),
        ({"scores": Arr(TYPE_F32, [1.0])}, FormatError, r"scores has 1 items for 264 tokens"),
        ({"merges": None}, FormatError, r"merges is missing"),
        ({"merges": U32(3)}, FormatError, r"merges must be an array of strings"),
        ({"bos_token_id": U32(264)}, FormatError, r"bos_token_id is 264, .*only 264 tokens"),
        ({"eos_token_id": Str("two")}, FormatError, r"eos_token_id"),
        ({"fim_pre_token_id": Arr(TYPE_I32, [1, 2])}, FormatError, r"fim_pre_token_id must be one integer"),
        ({"add_bos_token": Str("yes")}, FormatError, r"add_bos_token"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_damaged_vocabulary(changed: dict[str, Any], error: type[Exception], pattern: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=pattern):
        open_made(tmp_path, bpe(**changed)).close()


def test_odd_but_usable(tmp_path: Path) -> None:
    """An id of 2^32 - 1 says none; BOS and blanks as the file asks; broken merges count as absent."""
    metadata = bpe(
        eos_token_id=U32(0xFFFFFFFF),
        add_bos_token=Bool(True),
        merges=Arr(TYPE_STR, ["", " ", "h", "h e l", "h e", b"\xff \xfe"]),
    )
    with open_made(tmp_path, metadata) as tokenizer:
        assert tokenizer.eos is None
        assert tokenizer.encode("hel", add_special=True) == [263, 256, ord("l")]


def write_vectors(cases: list[dict[str, Any]], path: Path) -> None:
    """Counts and items, all little-endian: text, ids, ids with special tokens, bytes."""
    parts = [struct.pack("<I", len(cases))]
    for case in cases:
        text, data = case["text"].encode(), bytes.fromhex(case["detokenized_hex"])
        parts += [struct.pack("<I", len(text)), text]
        for ids in (case["ids"], case["ids_with_special"]):
            parts.append(struct.pack(f"<I{len(ids)}i", len(ids), *ids))
        parts += [struct.pack("<I", len(data)), data]
    path.write_bytes(b"".join(parts))


if __name__ == "__main__":
    with gzip.open(sys.argv[1]) as source:
        write_vectors(json.load(source), Path(sys.argv[2]))
