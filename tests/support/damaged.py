"""
Damaged GGUF files: what can be wrong with one, each kind as a small builder with the answer it must get.

``CASES`` lists them. A case is opened in a forked child (``run_all``), so that a crash, a hang or a memory bomb is a
result like any other. As a program this file opens every case with a library and prints one JSON line for each::

    python tests/support/damaged.py LIBRARY FOLDER          # FOLDER is made, used and removed
    python tests/support/damaged.py --corpus FOLDER         # writes the small ones only, to seed the fuzzer

Sources: the format as in ggml's docs/gguf.md; kinds of damage from the format's published vulnerabilities (lengths and
counts that size an allocation, sums and products that wrap, data outside the file) and from what people download
by mistake.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["refuse", "accept", "either"]

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
T_F32, T_Q8_0, T_I64 = 0, 8, 27
MAX64 = 2**64 - 1
TIME_LIMIT = 60.0  # seconds until a child counts as hung


# ---- pieces of a file -------------------------------------------------------------------------


def text(value: bytes | str, length: int | None = None) -> bytes:
    """A length-prefixed string; *length* lies about its length."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if length is None else length) + data


def kv(key: bytes | str, kind: int, payload: bytes) -> bytes:
    """A key, its type number and the bytes of its value."""
    return text(key) + struct.pack("<I", kind) + payload


def u32(key: str, value: int) -> bytes:
    return kv(key, U32, struct.pack("<I", value))


def array(key: str, kind: int, count: int, payload: bytes = b"") -> bytes:
    """An array whose item type and count need not fit its payload."""
    return kv(key, ARR, struct.pack("<IQ", kind, count) + payload)


def info(name: bytes | str, dims: list[int], kind: int, offset: int, n_dims: int | None = None) -> bytes:
    """One entry of the tensor table."""
    count = len(dims) if n_dims is None else n_dims
    sizes = b"".join(struct.pack("<Q", d % 2**64) for d in dims)
    return text(name) + struct.pack("<I", count % 2**32) + sizes + struct.pack("<IQ", kind % 2**32, offset % 2**64)


def start(n_tensors: int, n_kv: int, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version % 2**32, n_tensors % 2**64, n_kv % 2**64)


ARCHITECTURE = kv("general.architecture", STR, text("llama"))
KEYS = [
    ARCHITECTURE,
    kv("general.name", STR, text("tiny")),
    u32("llama.block_count", 1),
    array("tokenizer.ggml.tokens", STR, 4, b"".join(map(text, ["<s>", "a", "b", "é"]))),
    array("tokenizer.ggml.scores", F32, 4, struct.pack("<4f", 0, -1, -2, -3)),
    kv("tokenizer.ggml.add_bos_token", BOOL, b"\1"),
]
TENSORS = [  # 128, 68 and 32 bytes, each from a multiple of 32
    info("token_embd.weight", [8, 4], T_F32, 0),
    info("blk.0.attn_q.weight", [32, 2], T_Q8_0, 128),
    info("output_norm.weight", [8], T_F32, 224),
]
DATA = bytes(range(256))


def build(
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    data: bytes = DATA,
    *,
    n_kv: int | None = None,
    n_tensors: int | None = None,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A file; what is not given is sound, and counts are right unless given."""
    keys = KEYS if keys is None else keys
    tensors = TENSORS if tensors is None else tensors
    head = start(len(tensors) if n_tensors is None else n_tensors, len(keys) if n_kv is None else n_kv, version=version)
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def with_key(entry: bytes) -> bytes:
    """A sound file with one more key, which comes last."""
    return build([*KEYS, entry])


def with_tensor(entry: bytes, data: bytes = DATA) -> bytes:
    """A sound file with one more tensor, which comes last."""
    return build(tensors=[*TENSORS, entry], data=data)


def header_size() -> int:
    return len(build(data=b""))


# ---- cases ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """
    One kind of damage.

    Attributes:
        name: Also the file's name, without ``.gguf``.
        verdict: Whether opening must fail, must work, or may do either (but cleanly).
        pattern: Regular expression the error sentence must contain.
        make: Writes the case below a folder of its own and returns the path to open.
    """

    name: str
    verdict: Verdict
    pattern: str
    make: Callable[[Path], Path]


CASES: list[Case] = []


def case(name: str, verdict: Verdict, pattern: str, make: Callable[[], bytes] | bytes) -> None:
    """Add a case of one file."""

    def write(folder: Path) -> Path:
        path = folder / f"{name}.gguf"
        path.write_bytes(make if isinstance(make, bytes) else make())
        return path

    CASES.append(Case(name, verdict, pattern, write))


def place(name: str, pattern: str, verdict: Verdict = "refuse") -> Callable[[Callable[[Path], Path]], None]:
    """Add a case that needs more than one file, or something that is not a file."""

    def add(make: Callable[[Path], Path]) -> None:
        CASES.append(Case(name, verdict, pattern, make))

    return add


def header_cases() -> None:
    whole = build()
    head = header_size()
    case("sound", "accept", "", whole)
    case("sound_v2", "accept", "", build(version=2))
    case("sound_trailing_bytes", "accept", "", whole + b"trailing" * 100)
    case("sound_no_keys_no_tensors", "accept", "", start(0, 0))
    case("sound_vocabulary_only", "accept", "", build(tensors=[], data=b""))
    case("magic_only", "refuse", r"header .*needs 4 bytes.*file ends", b"GGUF")
    case("magic_wrong", "refuse", r"not a GGUF file: it begins with 47 47 55 99", b"GGU\x99" + whole[4:])
    case("magic_swapped", "refuse", r"swapped byte order", b"FUGG" + whole[4:])
    case("version_0", "refuse", r"version 0 .*does not exist", build(version=0))
    case("version_1", "refuse", r"GGUF version 1", build(version=1))
    case("version_4", "refuse", r"version 4, newer .*update", build(version=4))
    case("version_max", "refuse", r"version 4294967295 .*damaged", build(version=-1))
    case("big_endian", "refuse", r"big-endian", b"GGUF" + struct.pack(">IQQ", 3, 3, 6) + whole[24:])
    for size in (5, 8, 12, 16, 20, 23):
        case(f"header_cut_at_{size}", "refuse", r"the header at byte \d+ needs .*file ends", whole[:size])
    for percent in (10, 25, 40, 55, 70, 85, 95, 99):
        cut = max(24, head * percent // 100)
        case(f"header_cut_{percent}_percent", "refuse", r"not fully downloaded|damaged", whole[:cut])
    for name, count in (("max", MAX64), ("sign", 2**63), ("wrap", 2**64 // 33 + 1), ("billion", 10**9)):
        case(f"n_tensors_{name}", "refuse", rf"counts {count} tensors.*hold at most \d+", build(n_tensors=count))
        case(f"n_keys_{name}", "refuse", rf"counts {count} keys.*hold at most \d+", build(n_kv=count))
    case("n_tensors_one_more", "refuse", r"tensor 4 of 4", build(n_tensors=4))
    case("n_keys_one_more", "refuse", r"name of tensor 1 of 3 ", build(n_kv=7))
    case("n_keys_one_less", "refuse", r"tensor 'tokenizer.ggml.add_bos_token'.*7 dimensions", build(n_kv=5))
    case("n_tensors_one_less", "accept", "", build(n_tensors=2))


def key_cases() -> None:
    case("key_length_max", "refuse", r"name of key 1 of 1 .*18446744073709551615 bytes", start(0, 1) + b"\xff" * 60)
    case(
        "key_length_wrap",
        "refuse",
        r"name of key 7 of 7 .*limit is 65535",
        build([*KEYS, text(b"k", MAX64 - 7) + struct.pack("<II", U32, 1)]),
    )
    case("key_length_past_end", "refuse", r"key 1 of 1 at byte 32 needs 500 bytes", start(0, 1) + text(b"k" * 90, 500))
    case("key_empty", "refuse", r"name of key 7 of 7 .*is empty", with_key(u32("", 1)))
    case("key_too_long", "refuse", r"claims 65536 bytes, the limit is 65535", with_key(u32("k" * 65536, 1)))
    case("key_longest", "accept", "", with_key(u32("k" * 65535, 1)))
    case("key_unicode", "accept", "", with_key(u32("schlüssel", 1)))
    case("key_not_utf8", "refuse", r"not printable UTF-8: 'k\\xff\\xfe'", with_key(kv(b"k\xff\xfe", U8, b"\0")))
    case("key_with_nul", "refuse", r"not printable UTF-8: 'a\\x00b'", with_key(kv(b"a\0b", U8, b"\0")))
    case("key_with_escape", "refuse", r"not printable UTF-8: '\\x1b\[2J'", with_key(kv(b"\x1b[2J", U8, b"\0")))
    case(
        "key_twice",
        "refuse",
        r"key 'general.name' appears twice \(as number 2 and number 7\)",
        with_key(kv("general.name", STR, text("other"))),
    )
    for kind in (13, 255, 2**32 - 1):
        case(
            f"value_type_{kind}",
            "refuse",
            rf"key 'k' .*value type {kind}, which does not exist",
            with_key(kv("k", kind, bytes(16))),
        )
        case(
            f"array_type_{kind}",
            "refuse",
            rf"key 'k' .*array item type {kind}, which does not exist",
            with_key(array("k", kind, 1, bytes(16))),
        )
    for name, length in (("max", MAX64), ("sign", 2**63), ("wrap", MAX64 - 7), ("gigabyte", 2**30)):
        case(
            f"string_length_{name}",
            "refuse",
            rf"key 'k' at byte \d+ needs {length} bytes, but the file ends",
            with_key(kv("k", STR, text("v", length))),
        )
        case(
            f"array_string_length_{name}",
            "refuse",
            rf"key 'k' at byte \d+ needs {length} bytes, but the file ends",
            with_key(array("k", STR, 3, text("a") + text("b", length) + text("c"))),
        )
        case(
            f"array_strings_count_{name}",
            "refuse",
            rf"key 'k' .*counts {length} strings.*hold at most",
            with_key(array("k", STR, length, text("a"))),
        )
    case(
        "string_past_end_by_one",
        "refuse",
        r"key 'k' .*needs 11 bytes, but the file ends after 10",
        start(0, 1) + kv("k", STR, text("0123456789", 11)),
    )
    case(
        "array_strings_cut",
        "refuse",
        r"key 'k' .*needs 8 bytes, but the file ends after 4",
        start(0, 1) + array("k", STR, 2, text("0123456789") + bytes(4)),
    )
    for kind, size in ((U8, 1), (U16, 2), (F32, 4), (U64, 8), (F64, 8)):
        case(
            f"array_count_wrap_type_{kind}",
            "refuse",
            r"key 'k' .*(more than any file holds|but the file ends)",
            with_key(array("k", kind, 2**64 // size if size > 1 else MAX64, bytes(8))),
        )
        case(
            f"array_past_end_type_{kind}",
            "refuse",
            rf"key 'k' .*needs {8 * size} bytes, but the file ends",
            start(0, 1) + array("k", kind, 8, bytes(8 * size - 1)),
        )
    case(
        "array_of_arrays",
        "refuse",
        r"key 'k' .*array of arrays",
        with_key(array("k", ARR, 1, struct.pack("<IQI", U32, 1, 7))),
    )
    case(
        "array_nested_100000_deep",
        "refuse",
        r"array of arrays",
        lambda: with_key(array("k", ARR, 1, struct.pack("<IQ", ARR, 1) * 100_000)),
    )
    case("array_empty", "accept", "", with_key(array("k", F32, 0)))
    case("array_of_strings_empty", "accept", "", with_key(array("k", STR, 0)))
    case(
        "bool_2", "refuse", r"key 'k' has the bool 2 at byte \d+, which must be 0 or 1", with_key(kv("k", BOOL, b"\2"))
    )
    case("bool_array_255", "refuse", r"key 'k' has the bool 255", with_key(array("k", BOOL, 3, b"\0\1\xff")))
    case("string_not_utf8", "accept", "", with_key(kv("k", STR, text(b"\xff\xfe\x00\x1b[31m"))))
    case("string_one_megabyte", "accept", "", lambda: with_key(kv("k", STR, text(b"x" * 2**20))))
    case(
        "floats_not_finite",
        "accept",
        "",
        with_key(array("k", F32, 3, struct.pack("<3f", *map(float, ("inf", "-inf", "nan"))))),
    )
    for value in (0, 1, 3, 4, 33, 131072, 2**32 - 1):
        case(
            f"alignment_{value}",
            "refuse",
            rf"general.alignment is {value}, .*power of two from 8 to 65536",
            with_key(u32("general.alignment", value)),
        )
    case(
        "alignment_negative",
        "refuse",
        r"general.alignment' has the value -32, it must be from 0",
        with_key(kv("general.alignment", I32, struct.pack("<i", -32))),
    )
    case(
        "alignment_string",
        "refuse",
        r"general.alignment' is of type string, it must be an integer",
        with_key(kv("general.alignment", STR, text("32"))),
    )
    case(
        "alignment_float",
        "refuse",
        r"general.alignment' is of type f32",
        with_key(kv("general.alignment", F32, struct.pack("<f", 32))),
    )
    case(
        "alignment_array",
        "refuse",
        r"general.alignment' is an array of u32",
        with_key(array("general.alignment", U32, 1, struct.pack("<I", 32))),
    )
    case(
        "alignment_moves_data",
        "refuse",
        r"tensor 'token_embd.weight' lies at bytes 65536 to 65664, .*file ends",
        with_key(u32("general.alignment", 65536)),
    )
    case(
        "alignment_against_offsets",
        "refuse",
        r"tensor 'blk.0.attn_q.weight' has offset 128, .*alignment 65536",
        lambda: build([*KEYS, u32("general.alignment", 65536)], alignment=65536),
    )
    case(
        "alignment_65536",
        "accept",
        "",
        lambda: build([*KEYS, u32("general.alignment", 65536)], [TENSORS[0]], alignment=65536),
    )
    case("keys_100000", "accept", "", lambda: build([ARCHITECTURE] + [u32(f"k.{i}", i) for i in range(100_000)]))
    case(
        "keys_200000",
        "refuse",
        r"counts 200000 keys, the limit is 131072",
        lambda: build([u32(f"k.{i}", i) for i in range(200_000)]),
    )
    case(
        "strings_3_million",
        "refuse",
        r"counts 3000000 strings, the limit is 2097152",
        lambda: with_key(array("k", STR, 3_000_000, bytes(24_000_000))),
    )
    case(
        "header_of_80_megabytes",
        "refuse",
        r"past its limit of 64 MiB",
        lambda: with_key(kv("k", STR, text(bytes(80_000_000)))),
    )


def tensor_cases() -> None:
    end = 256  # where the data of one more tensor may begin
    more = DATA + bytes(64)
    case("tensor_sound", "accept", "", with_tensor(info("t", [8], T_F32, end), more))
    case(
        "tensor_name_empty", "refuse", r"name of tensor 4 of 4 .*is empty", with_tensor(info("", [8], T_F32, end), more)
    )
    case("tensor_name_64", "accept", "", with_tensor(info("t" * 64, [8], T_F32, end), more))
    case(
        "tensor_name_65",
        "refuse",
        r"claims 65 bytes, the limit is 64",
        with_tensor(info("t" * 65, [8], T_F32, end), more),
    )
    case(
        "tensor_name_length_max",
        "refuse",
        r"claims 18446744073709551615 bytes",
        build(tensors=[*TENSORS, text("t", MAX64) + bytes(40)]),
    )
    case("tensor_name_not_utf8", "refuse", r"not printable UTF-8", with_tensor(info(b"\xc3(", [8], T_F32, end), more))
    case("tensor_name_with_nul", "refuse", r"'t\\x00t'", with_tensor(info(b"t\0t", [8], T_F32, end), more))
    case(
        "tensor_twice",
        "refuse",
        r"tensor 'output_norm.weight' appears twice \(as number 3 and number 4\)",
        with_tensor(info("output_norm.weight", [8], T_F32, end), more),
    )
    for count in (0, 5, 2**31, 2**32 - 1):
        case(
            f"tensor_dimensions_{count}",
            "refuse",
            rf"tensor 't' .*has {count} dimensions, it must have 1 to 4",
            with_tensor(info("t", [8] * min(count, 5), T_F32, end, n_dims=count), more),
        )
    for name, value in (("zero", 0), ("negative", -1), ("sign", 2**63)):
        case(
            f"tensor_dimension_{name}",
            "refuse",
            r"tensor 't' has dimension 1 = .*at least 1",
            with_tensor(info("t", [8, value], T_F32, end), more),
        )
    shapes = {
        "two": [2**32, 2**32],
        "four": [2**16, 2**16, 2**16, 2**16],
        "to_zero": [2**62, 4],
        "to_small": [2**63 - 1, 3],
        "sign": [2**31, 2**32],
    }
    for name, dims in shapes.items():
        case(
            f"tensor_product_wrap_{name}",
            "refuse",
            r"tensor 't' has more than 2\^63 elements",
            with_tensor(info("t", dims, T_F32, end), more),
        )
    case(
        "tensor_bytes_wrap",
        "refuse",
        r"tensor 't' has more than 2\^63 bytes",
        with_tensor(info("t", [2**61], T_I64, end), more),
    )
    case(
        "tensor_bytes_wrap_blocks",
        "refuse",
        r"tensor 't' has more than 2\^63 bytes",
        with_tensor(info("t", [2**63 - 32], T_Q8_0, end), more),
    )
    case(
        "tensor_of_terabytes",
        "refuse",
        r"tensor 't' lies at bytes .*but the file ends at",
        with_tensor(info("t", [2**20, 2**20], T_F32, end), more),
    )
    for kind in (43, 100, 2**31, 2**32 - 1):
        case(
            f"tensor_type_{kind}",
            "refuse",
            rf"tensor 't' .*has type {kind}, which is not known",
            with_tensor(info("t", [256], kind, end), more),
        )
    for kind in (4, 5, 31, 36, 38):
        case(
            f"tensor_type_removed_{kind}",
            "refuse",
            rf"tensor 't' has type {kind}, which was removed",
            with_tensor(info("t", [256], kind, end), more),
        )
    for kind in (24, 25, 26, 27, 28):
        case(f"tensor_type_number_{kind}", "accept", "", with_tensor(info("t", [8], kind, end), more))
    for kind, row, block in ((T_Q8_0, 31, 32), (12, 128, 256), (T_Q8_0, 1, 32)):
        case(
            f"tensor_row_{row}_of_type_{kind}",
            "refuse",
            rf"tensor 't' has rows of {row} elements.*packs {block}",
            with_tensor(info("t", [row, 256], kind, end), more),
        )
    case(
        "offset_unaligned",
        "refuse",
        r"tensor 't' has offset 260, .*alignment 32",
        with_tensor(info("t", [8], T_F32, 260), more),
    )
    case(
        "offset_past_end",
        "refuse",
        r"tensor 't' lies at bytes .*file ends",
        with_tensor(info("t", [8], T_F32, 4096), more),
    )
    case(
        "offset_last_byte_outside",
        "refuse",
        r"tensor 't' lies at bytes .*file ends",
        with_tensor(info("t", [8], T_F32, end), DATA + bytes(31)),
    )
    case(
        "offset_max",
        "refuse",
        r"offset and a size .*more than 2\^63|not a multiple",
        with_tensor(info("t", [8], T_F32, MAX64 - 31), more),
    )
    case("offset_sign", "refuse", r"more than 2\^63", with_tensor(info("t", [8], T_F32, 2**63), more))
    case(
        "offset_wraps_into_header",
        "refuse",
        r"more than 2\^63",
        with_tensor(info("t", [8], T_F32, -header_size() & ~31), more),
    )
    case(
        "offset_same",
        "refuse",
        r"tensors 'token_embd.weight' .* and 't' .* overlap",
        with_tensor(info("t", [8], T_F32, 0), more),
    )
    case(
        "offset_overlap_tail",
        "refuse",
        r"'token_embd.weight' .*'t' .*overlap",
        with_tensor(info("t", [8], T_F32, 96), more),
    )
    case(
        "offset_overlap_far",
        "refuse",
        r"overlap",
        build(tensors=[info("a", [64], T_F32, 0), info("b", [8], T_F32, 32), info("c", [8], T_F32, 256)], data=more),
    )
    case("offset_out_of_order", "accept", "", build(tensors=[TENSORS[2], TENSORS[1], TENSORS[0]]))
    case("offset_gap", "accept", "", with_tensor(info("t", [8], T_F32, 320), DATA + bytes(96)))
    case("data_missing", "refuse", r"tensor 'token_embd.weight' lies at bytes .*file ends", build(data=b""))
    case("data_cut_by_one", "refuse", r"tensor 'output_norm.weight' .*file ends", build(data=DATA[:-1]))
    case("data_cut_in_half", "refuse", r"tensor 'blk.0.attn_q.weight' .*file ends", build(data=DATA[:128]))
    case("data_without_padding", "refuse", r"tensor 'token_embd.weight' .*file ends", build(data=b"")[:-1])
    n = 60_000
    case(
        "tensors_60000_backwards",
        "accept",
        "",
        lambda: build(tensors=[info(f"t{i}", [1], 24, 32 * (n - 1 - i)) for i in range(n)], data=bytes(32 * n)),
    )
    case(
        "tensors_140000",
        "refuse",
        r"counts 140000 tensors, the limit is 131072",
        lambda: build(tensors=[info(f"t{i}", [1], 24, 32 * i) for i in range(140_000)], data=b""),
    )


def mistaken_cases() -> None:
    """Files that are not models at all."""
    case("empty", "refuse", r"is empty \(0 bytes\)", b"")
    case("one_byte", "refuse", r"not a GGUF file|text file", b"G")
    case("zeros", "refuse", r"begins with zeros.*download", bytes(5000))
    case(
        "html", "refuse", r"HTML page.*download the file itself", b"<!DOCTYPE html>\n<html><body>Sign in</body></html>"
    )
    case("html_after_mark_and_space", "refuse", r"HTML page", b"\xef\xbb\xbf\r\n  <HTML lang=en>")
    case("xml", "refuse", r"XML document", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')
    case("json", "refuse", r"JSON text", b'{"error": "Repository not found"}')
    case("plain_text", "refuse", r"text file", b"Access to this model is restricted.\n")
    case(
        "git_lfs_pointer",
        "refuse",
        r"git-lfs pointer.*git lfs pull",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 98362432\n",
    )
    case("zip", "refuse", r"zip archive.*convert", b"PK\3\4" + bytes(range(60)))
    case("gzip", "refuse", r"gzip.*gunzip", b"\x1f\x8b\x08" + bytes(60))
    case("xz", "refuse", r"xz.*unxz", b"\xfd7zXZ\0" + bytes(60))
    case("zstd", "refuse", r"zstd.*unzstd", b"\x28\xb5\x2f\xfd" + bytes(60))
    case("bzip2", "refuse", r"bzip2", b"BZh91AY&SY" + bytes(range(60)))
    case("seven_zip", "refuse", r"7-Zip", b"7z\xbc\xaf\x27\x1c" + bytes(60))
    meta = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    case("safetensors", "refuse", r"safetensors.*GGUF", struct.pack("<Q", len(meta)) + meta + bytes(8))
    for protocol in (2, 3, 4, 5):
        case(f"pickle_{protocol}", "refuse", r"pickle", bytes([0x80, protocol]) + b"}q\0." + bytes(60))
    case("ggml_2022", "refuse", r"GGML format of 2022", b"lmgg" + bytes(60))
    case("ggjt_2023", "refuse", r"GGJT format of 2023", b"tjgg" + struct.pack("<I", 3) + bytes(60))
    case("elf", "refuse", r"program \(ELF\)", b"\x7fELF\2\1\1" + bytes(60))
    case("png", "refuse", r"PNG image", b"\x89PNG\r\n\x1a\n" + bytes(60))
    case("hdf5", "refuse", r"HDF5", b"\x89HDF\r\n\x1a\n" + bytes(60))
    case("random_bytes", "refuse", r"not a GGUF file: it begins with", random.Random(1).randbytes(4096))

    @place("missing", r"no such file: .*missing\.gguf")
    def _(folder: Path) -> Path:
        return folder / "missing.gguf"

    @place("missing_folder", r"not a folder|no such file")
    def _(folder: Path) -> Path:
        (folder / "file").write_bytes(b"")
        return folder / "file" / "model.gguf"

    @place("folder", r"is a folder; name the \.gguf file")
    def _(folder: Path) -> Path:
        (folder / "folder.gguf").mkdir()
        return folder / "folder.gguf"

    @place("pipe", r"is a pipe")
    def _(folder: Path) -> Path:
        os.mkfifo(folder / "pipe.gguf")
        return folder / "pipe.gguf"

    @place("device_zero", r"is a device")
    def _(folder: Path) -> Path:
        (folder / "zero.gguf").symlink_to("/dev/zero")
        return folder / "zero.gguf"

    @place("link_to_itself", r"too many symbolic links")
    def _(folder: Path) -> Path:
        (folder / "loop.gguf").symlink_to("loop.gguf")
        return folder / "loop.gguf"

    @place("no_permission", r"no permission to read")
    def _(folder: Path) -> Path:
        path = folder / "no_permission.gguf"
        path.write_bytes(build())
        path.chmod(0)
        return path

    @place("path_too_long", r"path is too long|could not be opened")
    def _(folder: Path) -> Path:
        return folder / ("x" * 5000)

    @place("sound_unicode_path", "", "accept")
    def _(folder: Path) -> Path:
        path = folder / "modèle 模型.gguf"
        path.write_bytes(build())
        return path


def split_keys(number: int, count: int, n_tensors: int) -> list[bytes]:
    return [
        kv("split.no", U16, struct.pack("<H", number)),
        kv("split.count", U16, struct.pack("<H", count)),
        kv("split.tensors.count", I32, struct.pack("<i", n_tensors)),
    ]


def part(number: int, count: int = 3, n_tensors: int = 3, tensors: list[bytes] | None = None) -> bytes:
    """Part *number* (from 0) of a model with one tensor in each."""
    entries = [info(f"t{number}", [8], T_F32, 0)] if tensors is None else tensors
    return build([*(KEYS if number == 0 else []), *split_keys(number, count, n_tensors)], entries, DATA)


def split(name: str, pattern: str, verdict: Verdict = "refuse", opened: int = 0, **changed: bytes | None) -> None:
    """Add a split model of three parts; ``p1=...`` replaces the second, None leaves it out."""

    def make(folder: Path) -> Path:
        paths = [folder / f"{name}-{i + 1:05}-of-00003.gguf" for i in range(3)]
        for i, path in enumerate(paths):
            data = changed.get(f"p{i}", part(i))
            if data is not None:
                path.write_bytes(data)
        return paths[opened]

    CASES.append(Case(name, verdict, pattern, make))


def split_cases() -> None:
    split("split_sound", "", "accept")
    split("split_first_without_tensors", "", "accept", p0=part(0, n_tensors=2, tensors=[]))
    split("split_later_opened", r"is part 2 of 3 .*open the first: split_later_opened-00001-of-00003\.gguf", opened=1)
    split("split_second_missing", r"part 2 of 3 .*no such file: .*-00002-of-00003\.gguf", p1=None)
    split("split_third_missing", r"part 3 of 3 .*no such file: .*-00003-of-00003\.gguf", p2=None)
    split("split_third_twice", r"-00003-of-00003\.gguf says it is part 2 of 3, by its name it is part 3", p2=part(1))
    split("split_part_of_another", r"-00002-of-00003\.gguf says it is part 2 of 2", p1=part(1, count=2))
    split("split_part_whole_model", r"says it is part 1 of 1, by its name it is part 2 of 3", p1=build())
    split("split_part_is_html", r"-00002-of-00003\.gguf is an HTML page", p1=b"<html></html>")
    split("split_part_empty", r"-00003-of-00003\.gguf is empty", p2=b"")
    split("split_part_cut", r"-00002-of-00003\.gguf: tensor 't1' lies at .*file ends", p1=part(1)[:-250])
    split("split_tensor_in_two_parts", r"tensor 't0' appears twice", p1=part(1, tensors=[info("t0", [8], T_F32, 0)]))
    split("split_tensors_missing", r"split\.tensors\.count is 3, but its 3 parts have 2", p2=part(2, tensors=[]))
    split("split_number_past_count", r"split\.no is 7, it must be below split\.count, which is 3", p0=part(7))
    split("split_count_of_2000", r"split\.count is 2000, the limit is 1024", p0=part(0, count=2000))
    split("split_count_against_name", r"must end in -00001-of-00004\.gguf", p0=part(0, count=4))
    case("split_renamed", "refuse", r"the first of 3 parts, .*must end in -00001-of-00003\.gguf", part(0))
    case("split_later_renamed", "refuse", r"is part 3 of 3 .*ends in -00001-of-00003\.gguf", part(2))
    case(
        "split_count_string", "refuse", r"split\.count' is of type string", with_key(kv("split.count", STR, text("3")))
    )
    case(
        "split_count_negative",
        "refuse",
        r"split\.count' has the value -3",
        with_key(kv("split.count", I32, struct.pack("<i", -3))),
    )
    case("split_count_1", "accept", "", build([*KEYS, *split_keys(0, 1, 3)]))

    @place("split_part_is_folder", r"part 2 of 3 cannot be opened: .*is a folder")
    def _(folder: Path) -> Path:
        (folder / "m-00001-of-00003.gguf").write_bytes(part(0))
        (folder / "m-00002-of-00003.gguf").mkdir()
        return folder / "m-00001-of-00003.gguf"


def random_cases() -> None:
    """Flipped bits, overwritten words and moved pieces of the header: any clean answer will do."""
    whole = build()
    head = header_size()
    for seed in range(60):
        rng = random.Random(seed)
        data = bytearray(whole)
        at = rng.randrange(4, head)
        if seed % 3 == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif seed % 3 == 1:
            size = rng.choice((1, 4, 8))
            data[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80"))[:1] * size
        else:
            n = rng.randrange(1, 40)
            del data[at : at + n]
        case(f"random_{seed:02}", "either", "", bytes(data))


for add_cases in (header_cases, key_cases, tensor_cases, mistaken_cases, split_cases, random_cases):
    add_cases()


# ---- running ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """
    What opening one case did.

    Attributes:
        status: What the library returned; None when the child died or hung.
        text: The error sentence, or the JSON of an accepted file.
        died: How a child that gave no answer ended ("signal 11", "hung"); "" for all others.
        seconds: Of processor time, since neighbours may hold a child up.
        extra_kb: Peak resident memory above that of a child that opens nothing.
    """

    name: str
    status: int | None
    text: str
    died: str
    seconds: float
    extra_kb: int


def load(library: str) -> ctypes.CDLL:
    lib = ctypes.CDLL(library)
    lib.edgellm_last_error.restype = ctypes.c_char_p
    lib.edgellm_inspect.argtypes = [ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]
    return lib


def inspect(lib: ctypes.CDLL, path: Path) -> tuple[int, str]:
    """Open *path*; status and the JSON or the error sentence."""
    json_text, n_bytes = ctypes.c_void_p(), ctypes.c_size_t()
    status = lib.edgellm_inspect(os.fsencode(path), 4, ctypes.byref(json_text), ctypes.byref(n_bytes))
    if status == 0:
        return status, ctypes.string_at(json_text.value or 0, n_bytes.value).decode()
    return status, lib.edgellm_last_error().decode()


def in_child(work: Callable[[], tuple[int, str]]) -> tuple[bytes, int, float, int]:
    """Fork, run *work*, and give its answer, wait status, seconds of processor time and peak resident kilobytes."""
    reader, writer = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.write(writer, json.dumps(work()).encode()[:60_000])  # fits the pipe
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    answer = b""
    while select.select([reader], [], [], max(0.0, began + TIME_LIMIT - time.monotonic()))[0]:
        chunk = os.read(reader, 65536)
        answer += chunk
        if not chunk:
            break
    else:
        os.kill(pid, signal.SIGKILL)  # what run() calls hung
    os.close(reader)
    _, status, usage = os.wait4(pid, 0)
    return answer, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def without_privileges() -> None:
    """Root may read everything; become nobody (only ever in a child)."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)


def run(lib: ctypes.CDLL, item: Case, path: Path, base_kb: int) -> Outcome:
    def work() -> tuple[int, str]:
        if item.name == "no_permission":
            without_privileges()
        status, said = inspect(lib, path)
        return status, said if status else said[:10_000]

    answer, code, seconds, peak = in_child(work)
    died = ""
    if os.WIFSIGNALED(code):
        died = "hung" if os.WTERMSIG(code) == signal.SIGKILL else f"signal {os.WTERMSIG(code)}"
    elif os.WEXITSTATUS(code):
        died = f"exit {os.WEXITSTATUS(code)}"
    status, said = json.loads(answer) if answer and not died else (None, "")
    return Outcome(item.name, status, said, died, seconds, peak - base_kb)


def write_all(folder: Path) -> Iterator[tuple[Case, Path]]:
    for item in CASES:
        own = folder / item.name
        own.mkdir(parents=True)
        yield item, item.make(own)


def run_all(library: str, folder: Path) -> Iterator[Outcome]:
    """Make *folder*, write every case below it, open each in a child of this process, and remove the folder."""
    folder.mkdir(parents=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lib = load(library)
    written = list(write_all(folder))
    base_kb = in_child(lambda: inspect(lib, folder / "none"))[3]
    for item, path in written:
        yield run(lib, item, path, base_kb)
    shutil.rmtree(folder)


def write_corpus(folder: Path, limit: int = 4096) -> int:
    """Write the cases of one small file into *folder*, for the fuzzer; how many."""
    count = 0
    with tempfile.TemporaryDirectory() as scratch:
        for item, path in write_all(Path(scratch)):
            found = os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises when the path is too long
            if found and os.access(path, os.R_OK) and path.stat().st_size <= limit:
                shutil.copyfile(path, folder / item.name)
                count += 1
    return count


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "--corpus":
        print(write_corpus(Path(arguments[1])))
        return 0
    for outcome in run_all(arguments[0], Path(arguments[1])):
        record: dict[str, Any] = vars(outcome)
        print(json.dumps(record), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
