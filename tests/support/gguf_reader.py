"""
A small GGUF reader for tests: metadata as Python values, tensors as NumPy arrays.

Independent of the library under test, trusts its input, and knows the tensor types F32, F16, Q8_0 and I32.
"""

from __future__ import annotations

import struct
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.gguf_writer import (
    BLOCKS,
    FORMATS,
    MAGIC,
    TENSOR_F16,
    TENSOR_F32,
    TENSOR_I32,
    TENSOR_Q8_0,
    TYPE_ARR,
    TYPE_STR,
    Value,
    write_gguf,
)


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def unpack(self, fmt: str) -> Any:
        (value,) = struct.unpack_from(fmt, self.data, self.at)
        self.at += struct.calcsize(fmt)
        return value

    def string(self) -> str:
        n = self.unpack("<Q")
        self.at += n
        return self.data[self.at - n : self.at].decode("utf-8", "surrogateescape")

    def value(self, kind: int) -> Value:
        if kind == TYPE_STR:
            return Value(kind, self.string())
        if kind != TYPE_ARR:
            return Value(kind, self.unpack(FORMATS[kind]))
        item_type = self.unpack("<I")
        return Value(kind, [self.value(item_type).value for _ in range(self.unpack("<Q"))], item_type)


def dequantize_q8_0(data: bytes) -> np.ndarray:
    """Blocks of an f16 scale and 32 int8 as flat float32."""
    blocks = np.frombuffer(data, np.dtype([("d", "<f2"), ("q", "i1", 32)]))
    return (blocks["d"].astype(np.float32)[:, None] * blocks["q"].astype(np.float32)).reshape(-1)


def read_typed(path: str | PathLike[str]) -> tuple[dict[str, Value], dict[str, np.ndarray]]:
    """
    Read a whole file.

    Returns:
        Metadata with types, in order, and tensors in the order of the file: float32 whatever the type
        (I32 stays int32), shape slowest first.
    """
    cursor = _Cursor(Path(path).read_bytes())
    assert cursor.data[:4] == MAGIC
    cursor.at = 8
    n_tensors, n_kv = cursor.unpack("<Q"), cursor.unpack("<Q")
    metadata = {}
    for _ in range(n_kv):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.unpack("<I"))
    infos = []
    for _ in range(n_tensors):
        name = cursor.string()
        shape = [cursor.unpack("<Q") for _ in range(cursor.unpack("<I"))]
        infos.append((name, shape, cursor.unpack("<I"), cursor.unpack("<Q")))
    alignment = metadata["general.alignment"].value if "general.alignment" in metadata else 32
    begin = cursor.at + -cursor.at % alignment
    tensors = {}
    for name, shape, kind, offset in infos:
        n = int(np.prod(shape))
        elements, size = BLOCKS[kind]
        raw = cursor.data[begin + offset : begin + offset + n // elements * size]
        if kind == TENSOR_Q8_0:
            flat = dequantize_q8_0(raw)
        else:
            flat = np.frombuffer(raw, {TENSOR_F32: "<f4", TENSOR_F16: "<f2", TENSOR_I32: "<i4"}[kind])
        dtype = np.int32 if kind == TENSOR_I32 else np.float32
        tensors[name] = flat.astype(dtype).reshape(shape[::-1])
    return metadata, tensors


def read_gguf(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """As read_typed, with plain values."""
    metadata, tensors = read_typed(path)
    return {key: value.value for key, value in metadata.items()}, tensors


def write_f32_copy(source: str | PathLike[str], target: str | PathLike[str]) -> Path:
    """Copy a file with every tensor dequantized to float32."""
    metadata, tensors = read_typed(source)
    if "general.file_type" in metadata:
        metadata["general.file_type"] = Value(metadata["general.file_type"].type, 0)
    return write_gguf(target, metadata, tensors)
