"""
The header of a GGUF file: keys, and each tensor's shape, type and size. Nothing native, so that the ruler does not
depend on what it measures; tests/unit/test_bench.py compares it with edgellm's own reader.

Source of the format: the specification in ggml's docs/gguf.md; block sizes from ggml-common.h.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from operator import mul
from pathlib import Path
from typing import Any

# Tensor types by their number in the file: name, elements of a block, bytes of a block.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 30: ("BF16", 1, 2),
    39: ("MXFP4", 32, 17), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 40: ("NVFP4", 64, 36),
}  # fmt: skip
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the list. *shape* as the file has it: the fastest dimension first."""

    name: str
    shape: tuple[int, ...]
    type: str
    n_bytes: int

    @property
    def n_elements(self) -> int:
        """The product of the shape."""
        return reduce(mul, self.shape, 1)


@dataclass(frozen=True, slots=True)
class Header:
    """
    What a file says about itself.

    Args:
        metadata: Scalars and strings by key; an array of numbers as list, one of strings as its length.
        raw: The bytes of every key with its value, as they stand in the file.
        tensors: The list in file order.
    """

    path: Path
    metadata: dict[str, Any]
    raw: dict[str, bytes]
    tensors: list[Tensor]

    @property
    def architecture(self) -> str:
        """general.architecture, or nothing."""
        return str(self.metadata.get("general.architecture", ""))

    def get(self, key: str, default: Any = None) -> Any:
        """A key of the architecture: ``get("block_count")``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def type_mix(self) -> str:
        """Types with their share of the bytes, the largest first: ``Q8_0 87 %, Q5_0 13 %``."""
        n_bytes: Counter[str] = Counter()
        for tensor in self.tensors:
            n_bytes[tensor.type] += tensor.n_bytes
        total = sum(n_bytes.values()) or 1
        return ", ".join(f"{name} {100 * n / total:.0f} %" for name, n in n_bytes.most_common() if n / total >= 0.005)


def read_header(path: Path) -> Header:
    """
    Read the header of a GGUF file.

    Raises:
        ValueError: It is not GGUF version 2 or 3, or has a tensor type that is not known here.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        magic, version, n_tensors, n_keys = struct.unpack_from("<4sIQQ", data)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{path} is not a GGUF file of version 2 or 3")
        at = 24
        metadata: dict[str, Any] = {}
        raw: dict[str, bytes] = {}
        for _ in range(n_keys):
            began = at
            key, at = _string(data, at)
            (kind,) = struct.unpack_from("<I", data, at)
            metadata[key], at = _value(data, at + 4, kind)
            raw[key] = data[began:at]
        tensors = []
        for _ in range(n_tensors):
            tensor, at = _tensor(data, at)
            tensors.append(tensor)
    return Header(path, metadata, raw, tensors)


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (n,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + n].decode("utf-8", "replace"), at + 8 + n


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, at)
    if kind != _ARRAY:
        form = "<" + _SCALARS[kind]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    item, n = struct.unpack_from("<IQ", data, at)
    at += 12
    if item == _STRING:
        for _ in range(n):
            at += 8 + struct.unpack_from("<Q", data, at)[0]
        return n, at
    form = f"<{n}{_SCALARS[item]}"
    return list(struct.unpack_from(form, data, at)), at + struct.calcsize(form)


def _tensor(data: mmap.mmap, at: int) -> tuple[Tensor, int]:
    name, at = _string(data, at)
    (n_dims,) = struct.unpack_from("<I", data, at)
    shape = struct.unpack_from(f"<{n_dims}Q", data, at + 4)
    at += 4 + 8 * n_dims
    (kind,) = struct.unpack_from("<I", data, at)
    if kind not in TYPES:
        raise ValueError(f"tensor {name} has type {kind}, which bench/gguf_header.py does not know: add it there")
    type_name, block, size = TYPES[kind]
    return Tensor(name, shape, type_name, reduce(mul, shape, 1) // block * size), at + 12
