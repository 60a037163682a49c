"""
The numbers of GGUF value types and of ggml tensor types, and how tensors of simple types become float32.

Source: ggml's docs/gguf.md for the values; `ggml_type` and the block structs of ggml for the tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRING, ARRAY = 8, 9
VALUE_NAMES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64")
VALUE_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


@dataclass(frozen=True)
class TensorType:
    """A tensor type: rows are whole blocks of `elements` weights in `n_bytes` bytes."""

    name: str
    elements: int
    n_bytes: int


TENSOR_TYPES = {
    number: TensorType(name, elements, n_bytes)
    for number, name, elements, n_bytes in (
        (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 36), (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4), (27, "I64", 1, 8), (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56), (30, "BF16", 1, 2), (34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17), (40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18), (42, "Q2_0", 64, 18),
    )
}  # fmt: skip
_PLAIN = {"F32": "<f4", "F16": "<f2", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F64": "<f8"}


def bf16_to_f32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The upper halves of float32 numbers as those numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bf16, ties to even; a NaN stays one by its quiet bit."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, (bits >> 16) | 64, rounded).astype(np.uint16)


def to_float(data: bytes | memoryview, kind: TensorType) -> NDArray[Any] | None:
    """
    Whole blocks as flat numbers: float64 for F64 and integers, else float32.

    Returns:
        None for a type that needs `edgellm.tensors` where that is not installed.
    """
    if kind.name in _PLAIN:
        plain = np.frombuffer(data, _PLAIN[kind.name])
        return plain.astype(np.float32 if kind.name in ("F32", "F16") else np.float64)
    if kind.name == "BF16":
        return bf16_to_f32(np.frombuffer(data, "<u2"))
    if kind.name == "Q8_0":
        blocks = np.frombuffer(data, np.dtype([("d", "<f2"), ("q", "i1", 32)]))
        return (blocks["d"].astype(np.float32)[:, None] * blocks["q"].astype(np.float32)).reshape(-1)
    try:
        from edgellm import tensors
    except ImportError:
        return None
    if kind.name not in tensors.types():
        return None
    return tensors.dequantize(data, kind.name, len(data) // kind.n_bytes * kind.elements)
