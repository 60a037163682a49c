"""
Small vocabularies of every kind, made from a seed, and texts for them.

`KINDS` has a function for each that gives the metadata of a GGUF file. What llama.cpp makes of `texts` with these files
is recorded in tests/data/vocab_small (record.py there); change a vocabulary or the texts, and record again.
"""

from __future__ import annotations

import random
import struct
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from tests.support.gguf_writer import TYPE_F32, TYPE_I32, TYPE_STR, TYPE_U8, U32, Arr, Bool, Str

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
Metadata = dict[str, Any]
Token = tuple[str, float, int]

SAMPLE = (
    "the quick brown fox jumps over a lazy dog and then they were thinking about tokenization of unbelievable words "
    "Hello World Straße naïve café ÉCOLE résumé über Ελληνικά привет мир שלום नमस्ते 你好世界 日本語 カタカナ 한국어 각 "
    "ﬁnal Ⅷ ① ㍿ ½ ＡＢＣ １２ ｶﾞ İstanbul ẞ 🙂 👨‍👩‍👧 don't (see) [a] {b} x=y+z 3.14 1234567 -- … “quoted” e.g. "
    "foo_bar C:\\dir"
)
WORDS = SAMPLE.split()
LETTERS = sorted(set("".join(WORDS)) | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))


def texts() -> list[str]:
    """About 300 texts: blanks of all kinds, words, mixtures, code points at random, and special tokens spelled out."""
    rng = random.Random(11)
    found = ["", " ", "  ", "\n", "\t\r\n", "a", " a", "a ", "  a  b  ", "\ufeffa", "a\x00b", "\x01\x7f\x85", "\u00ad"]
    found += [f"{a}{b}{a}" for a in ("x", " ") for b in ("\u00a0", "\u200b", "\u2028", "\u3000", "▁", "\u0301", "�")]
    found += WORDS
    specials = ["<tag>", "<mask>", "[MASK]", "<pad>", "<0x41>", "\\x41", "\\n"]
    for _ in range(120):
        blank = rng.choice([" ", "  ", "\n", "", " \t"])
        found.append(blank.join(rng.choice(WORDS) for _ in range(rng.randint(2, 9))))
    for _ in range(40):
        found.append(rng.choice(["", " "]).join(rng.choice([*specials, *WORDS]) for _ in range(rng.randint(2, 6))))
    for _ in range(60):
        ranges = [(1, 0x2FF), (0x300, 0x36F), (0x370, 0x2FFF), (0x3000, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x2FFFF)]
        found.append("".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 8))))
    return list(dict.fromkeys(found))


def _parts(rng: random.Random, words: Iterable[str], n: int) -> list[str]:
    """Different parts of words, at least two characters each."""
    found: dict[str, None] = {}
    pool = list(words)
    while len(found) < n:
        word = rng.choice(pool)
        start = rng.randrange(len(word))
        part = word[start : start + rng.randint(2, 8)]
        if len(part) > 1:
            found[part] = None
    return list(found)


def _metadata(model: str, tokens: list[Token], **keys: Any) -> Metadata:
    distinct = {token: (score, kind) for token, score, kind in reversed(tokens)}
    ordered = [(token, *distinct[token]) for token in dict.fromkeys(token for token, _, _ in tokens)]
    return {
        "general.architecture": Str("llama"),
        "tokenizer.ggml.model": Str(model),
        "tokenizer.ggml.tokens": Arr(TYPE_STR, [token for token, _, _ in ordered]),
        "tokenizer.ggml.scores": Arr(TYPE_F32, [score for _, score, _ in ordered]),
        "tokenizer.ggml.token_type": Arr(TYPE_I32, [kind for _, _, kind in ordered]),
        **{f"tokenizer.ggml.{key}": value for key, value in keys.items()},
    }


def _folded(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c)[0] != "M")


def wordpiece(cased: bool = False) -> Metadata:
    """BERT's kind; *cased* leaves case and accents as they are."""
    rng = random.Random(1)
    words = WORDS if cased else [_folded(word) for word in WORDS]
    letters = sorted(set("".join(words)) | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    special = [(name, 0.0, CONTROL) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    pieces = [*letters, *_parts(rng, words, 150)]
    starts = [f"▁{piece}" for piece in [*letters, *_parts(rng, words, 150)] if not piece.startswith("K")]
    keys: Metadata = {
        "bos_token_id": U32(2), "unknown_token_id": U32(1), "seperator_token_id": U32(3), "padding_token_id": U32(0),
        "mask_token_id": U32(4),
    }  # fmt: skip
    if cased:
        keys["normalizer.lowercase"] = Bool(False)
    return _metadata("bert", [*special, *((piece, 0.0, NORMAL) for piece in [*pieces, *starts])], **keys)


def charsmap(replacements: dict[str, str]) -> bytes:
    """A normalizer as SentencePiece compiles it: a double-array trie of 32-bit units, then the replacements."""
    children: dict[bytes, set[int]] = {b"": set()}
    values: dict[bytes, int] = {}
    strings = b""
    for source, target in replacements.items():
        key = source.encode()
        for end in range(len(key)):
            children.setdefault(key[:end], set()).add(key[end])
        children.setdefault(key, set()).add(0)  # the value stands where byte 0 would lead
        values[key] = len(strings)
        strings += target.encode() + b"\0"
    units, used = {0: 0}, {0}
    places = {b"": 0}
    for node in sorted(children, key=len):
        base = next(b for b in range(1, 1 << 20) if not any(b ^ c in used for c in children[node]))
        at = places[node]
        units[at] |= (at ^ base) << 10 | (1 << 8 if node in values else 0)
        for byte in children[node]:
            used.add(base ^ byte)
            if byte:
                places[node + bytes([byte])] = base ^ byte
                units[base ^ byte] = byte
            else:
                units[base] = 1 << 31 | values[node]
    n = (max(units) | 255) + 1
    table = b"".join(struct.pack("<I", units.get(i, 1 << 31)) for i in range(n))
    return struct.pack("<I", len(table)) + table + strings


def _compatibility() -> dict[str, str]:
    """NFKC of some characters, white space and controls as SentencePiece's nmt_nfkc has them, and a sequence."""
    found = {c: unicodedata.normalize("NFKC", c) for c in "ﬁⅧ①㍿½ＡＢＣ１２ｶﾞ…\u00a0\u3000é"}
    found |= {"e\u0301": "é", "\t": " ", "\n": " ", "\r": " ", "\u200b": "", "\x01": "", "ｶﾞ": "ガ"}
    return {source: target for source, target in found.items() if source != target}


def unigram(xlmr: bool = False) -> Metadata:
    """T5's kind; as *xlmr* with a normalizer, blanks joined, and tokens around a text."""
    rng = random.Random(2)
    words = [f"▁{word}" for word in WORDS] + WORDS
    special = [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
    tokens: list[Token] = [*special, ("▁", -2.5, NORMAL), ("<tag>", 0.0, USER), ("<mask>", 0.0, CONTROL)]
    tokens += [(letter, -rng.uniform(6, 12), NORMAL) for letter in LETTERS if letter not in "Wz한語"]
    tokens += [(piece, -rng.choice([3.5, 5.25, rng.uniform(3, 14)]), NORMAL) for piece in _parts(rng, words, 400)]
    tokens += [("over▁a", -4.0, NORMAL), ("▁▁", -3.0, NORMAL), ("azy", -1.0, UNUSED)]
    keys: Metadata = {"eos_token_id": U32(1), "unknown_token_id": U32(2), "padding_token_id": U32(0)}
    if xlmr:
        keys |= {
            "bos_token_id": U32(0), "add_bos_token": Bool(True), "add_eos_token": Bool(True),
            "add_space_prefix": Bool(True), "remove_extra_whitespaces": Bool(True),
            "precompiled_charsmap": Arr(TYPE_U8, charsmap(_compatibility())),
        }  # fmt: skip
    made = _metadata("t5", tokens, **keys)
    if xlmr:
        made["general.architecture"] = Str("nomic-bert-moe")  # white space before <mask> belongs to it
    return made


def _rwkv_spelling(piece: bytes) -> str:
    """As converters write it: Python's repr of the bytes."""
    return ascii(piece)[2:-1].replace("\\'", "'")


def rwkv() -> Metadata:
    """RWKV's world kind: all bytes and some longer strings, also parts of characters."""
    rng = random.Random(3)
    pieces = [bytes([byte]) for byte in range(256)]
    pieces += [part.encode() for part in _parts(rng, [f" {word}" for word in WORDS] + WORDS, 250)]
    pieces += ["世".encode()[:2], b"\n\n", b"\r\n", b"  ", b"    ", b"\\", b"\\n", b'"', b"'s", "🙂".encode()[:3]]
    tokens: list[Token] = [("<|begin|>", 0.0, CONTROL), *((_rwkv_spelling(piece), 0.0, NORMAL) for piece in pieces)]
    return _metadata("rwkv", tokens)


def plamo2() -> Metadata:
    """PLaMo 2's kind: scores that decide, some of them equal, one that forbids its piece."""
    rng = random.Random(4)
    special = [(f"<|plamo:{name}|>", 0.0, CONTROL) for name in ("unk", "bos", "eos", "pad")]
    tokens: list[Token] = [*special, *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256))]
    tokens += [(letter, -rng.uniform(5, 12), NORMAL) for letter in [*LETTERS, " ", "\n"] if letter not in "Wz한語"]
    words = [f" {word}" for word in WORDS] + WORDS
    tokens += [(piece, -rng.choice([4.0, 6.5, rng.uniform(3, 16)]), NORMAL) for piece in _parts(rng, words, 400)]
    tokens += [("quick", -2500.0, NORMAL), ("</s>", -3.0, NORMAL)]
    return _metadata("plamo2", tokens, bos_token_id=U32(1), eos_token_id=U32(2), unknown_token_id=U32(0))


def whitespace() -> Metadata:
    """Byte-pair encoding of plain characters where white space only divides (jina-embeddings-v2-base-zh)."""
    tokens: list[Token] = [("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
    tokens += [(letter, 0.0, NORMAL) for letter in LETTERS]
    merges = []
    for word in WORDS[:40]:
        for end in range(2, len(word) + 1):
            merges.append(f"{word[: end - 1]} {word[end - 1]}")
            tokens.append((word[:end], 0.0, NORMAL))
    keys = {"pre": Str("whitespace"), "bos_token_id": U32(0), "eos_token_id": U32(1), "unknown_token_id": U32(2)}
    return _metadata("whitespace", tokens, merges=Arr(TYPE_STR, list(dict.fromkeys(merges))), **keys)


KINDS: dict[str, Callable[[], Metadata]] = {
    "wordpiece": wordpiece,
    "wordpiece-cased": lambda: wordpiece(cased=True),
    "unigram-t5": unigram,
    "unigram-xlmr": lambda: unigram(xlmr=True),
    "rwkv": rwkv,
    "plamo2": plamo2,
    "whitespace": whitespace,
}
