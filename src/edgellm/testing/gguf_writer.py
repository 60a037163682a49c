"""
A small GGUF v3 writer, so that tests can make sound and unsound files without another package.

Values take their GGUF type from a wrapper (``U32(5)``) or from the Python type: bool, int (u32 when it fits, else
i32, u64 or i64), float (f32), str or bytes (string), list or NumPy array (array). Nothing is checked that a test may
want to get wrong: duplicate keys, odd alignments and misleading shapes are written as given.

Source of the format: the specification in ggml's docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"GGUF"

# Numbers of the value types in the file format.
TYPE_U8, TYPE_I8, TYPE_U16, TYPE_I16, TYPE_U32, TYPE_I32, TYPE_F32, TYPE_BOOL = range(8)
TYPE_STR, TYPE_ARR, TYPE_U64, TYPE_I64, TYPE_F64 = range(8, 13)
FORMATS = {
    TYPE_U8: "<B",
    TYPE_I8: "<b",
    TYPE_U16: "<H",
    TYPE_I16: "<h",
    TYPE_U32: "<I",
    TYPE_I32: "<i",
    TYPE_F32: "<f",
    TYPE_BOOL: "<?",
    TYPE_U64: "<Q",
    TYPE_I64: "<q",
    TYPE_F64: "<d",
}
_NUMPY_TYPES = {
    "uint8": TYPE_U8,
    "int8": TYPE_I8,
    "uint16": TYPE_U16,
    "int16": TYPE_I16,
    "uint32": TYPE_U32,
    "int32": TYPE_I32,
    "float32": TYPE_F32,
    "bool": TYPE_BOOL,
    "uint64": TYPE_U64,
    "int64": TYPE_I64,
    "float64": TYPE_F64,
}

# Numbers of some tensor types, and (elements, bytes) of their blocks. Source: ggml.h and ggml-common.h.
TENSOR_F32, TENSOR_F16, TENSOR_Q4_0, TENSOR_Q8_0, TENSOR_I32 = 0, 1, 2, 8, 26
BLOCKS = {TENSOR_F32: (1, 4), TENSOR_F16: (1, 2), TENSOR_Q4_0: (32, 18), TENSOR_Q8_0: (32, 34), TENSOR_I32: (1, 4)}


@dataclass(frozen=True)
class Value:
    """A value with its GGUF type; for an array *item_type* is the type of its items."""

    type: int
    value: Any
    item_type: int | None = None


def U8(value: int) -> Value:
    """An unsigned byte; the names below follow the same pattern."""
    return Value(TYPE_U8, value)


def I8(value: int) -> Value:
    return Value(TYPE_I8, value)


def U16(value: int) -> Value:
    return Value(TYPE_U16, value)


def I16(value: int) -> Value:
    return Value(TYPE_I16, value)


def U32(value: int) -> Value:
    return Value(TYPE_U32, value)


def I32(value: int) -> Value:
    return Value(TYPE_I32, value)


def F32(value: float) -> Value:
    return Value(TYPE_F32, value)


def Bool(value: bool) -> Value:
    return Value(TYPE_BOOL, value)


def Str(value: str | bytes) -> Value:
    return Value(TYPE_STR, value)


def U64(value: int) -> Value:
    return Value(TYPE_U64, value)


def I64(value: int) -> Value:
    return Value(TYPE_I64, value)


def F64(value: float) -> Value:
    return Value(TYPE_F64, value)


def Arr(item_type: int, values: Iterable[Any]) -> Value:
    """An array whose items have the type *item_type*; items of type TYPE_ARR are themselves values of Arr."""
    return Value(TYPE_ARR, list(values), item_type)


def infer(value: Any) -> Value:
    """Give a plain Python or NumPy value its GGUF type."""
    if isinstance(value, Value):
        return value
    if isinstance(value, np.ndarray):
        return Arr(_NUMPY_TYPES[value.dtype.name], value.reshape(-1).tolist())
    if isinstance(value, np.generic):
        return Value(_NUMPY_TYPES[value.dtype.name], value.item())
    if isinstance(value, bool):
        return Bool(value)
    if isinstance(value, int):
        return Value(_int_type([value]), value)
    if isinstance(value, float):
        return F32(value)
    if isinstance(value, (str, bytes)):
        return Str(value)
    items = list(value)
    if items and all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        return Arr(_int_type(items) if min(items) < 0 or max(items) > 0x7FFFFFFF else TYPE_I32, items)
    return Arr(infer(items[0]).type if items else TYPE_I32, items)


def _int_type(values: Sequence[int]) -> int:
    low, high = min(values), max(values)
    if low >= 0:
        return TYPE_U32 if high < 1 << 32 else TYPE_U64
    return TYPE_I32 if low >= -(1 << 31) and high < 1 << 31 else TYPE_I64


def encode_string(text: str | bytes) -> bytes:
    """A length of 8 bytes, then the bytes."""
    data = text.encode() if isinstance(text, str) else bytes(text)
    return struct.pack("<Q", len(data)) + data


def encode_payload(value: Value) -> bytes:
    """The bytes of a value without its type number; for an array with item type and count."""
    if value.type == TYPE_STR:
        return encode_string(value.value)
    if value.type != TYPE_ARR:
        return struct.pack(FORMATS[value.type], value.value)
    item_type = TYPE_I32 if value.item_type is None else value.item_type
    head = struct.pack("<IQ", item_type, len(value.value))
    items = (v if isinstance(v, Value) else Value(item_type, v) for v in value.value)
    return head + b"".join(encode_payload(item) for item in items)


def encode_kv(key: str | bytes, value: Any) -> bytes:
    """One key with its value, as the header holds it."""
    typed = infer(value)
    return encode_string(key) + struct.pack("<I", typed.type) + encode_payload(typed)


@dataclass(frozen=True)
class Tensor:
    """
    Raw tensor data with its shape and type number.

    Args:
        shape: As NumPy has it, slowest first; written in reverse, as GGUF wants.
        type: Number of the tensor type.
        data: The bytes, whole blocks along the last dimension.
    """

    shape: tuple[int, ...]
    type: int
    data: bytes


def tensor(array: np.ndarray | Tensor) -> Tensor:
    """A float32, float16 or int32 array as tensor; other float types become float32."""
    if isinstance(array, Tensor):
        return array
    if array.dtype == np.float16:
        number = TENSOR_F16
    elif array.dtype == np.int32:
        number = TENSOR_I32
    else:
        number, array = TENSOR_F32, array.astype(np.float32)
    return Tensor(tuple(array.shape), number, np.ascontiguousarray(array).tobytes())


def quantize_q8_0(array: np.ndarray) -> Tensor:
    """Blocks of 32 along the last dimension: an f16 scale (largest magnitude / 127) and 32 int8."""
    blocks = np.asarray(array, np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    packed = np.empty(len(blocks), np.dtype([("d", "<f2"), ("q", "i1", 32)]))
    packed["d"] = scale[:, 0]
    packed["q"] = np.rint(blocks * inverse)
    return Tensor(tuple(np.shape(array)), TENSOR_Q8_0, packed.tobytes())


def write_gguf(
    path: str | PathLike[str],
    metadata: Mapping[str, Any] | Sequence[tuple[str | bytes, Any]],
    tensors: Mapping[str, np.ndarray | Tensor] | Sequence[tuple[str | bytes, np.ndarray | Tensor]] = (),
    *,
    version: int = 3,
    alignment: int = 32,
) -> Path:
    """
    Write a GGUF file.

    Args:
        path: Where to; an existing file is replaced.
        metadata: Keys and values in order, typed as the module's docstring says. ``general.alignment`` is added
            when *alignment* is not 32 and the key is absent.
        tensors: Names and arrays in order.

    Returns:
        The path.
    """
    pairs = list(metadata.items()) if isinstance(metadata, Mapping) else list(metadata)
    named = list(tensors.items()) if isinstance(tensors, Mapping) else list(tensors)
    if alignment != 32 and all(key != "general.alignment" for key, _ in pairs):
        pairs.append(("general.alignment", U32(alignment)))
    header = [MAGIC, struct.pack("<IQQ", version, len(named), len(pairs))]
    header += [encode_kv(key, value) for key, value in pairs]
    data: list[bytes] = []
    offset = 0
    for name, array in named:
        raw = tensor(array)
        dims = tuple(reversed(raw.shape))
        header.append(encode_string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, raw.type, offset))
        data.append(raw.data + bytes(-len(raw.data) % alignment))
        offset += len(data[-1])
    head = b"".join(header)
    target = Path(path)
    with target.open("wb") as out:
        out.write(head + bytes(-len(head) % alignment))
        out.writelines(data)
    return target
