"""
Reads safetensors files: a header of JSON that says where each tensor lies, then the tensors.

Source: the format's description in the safetensors project. Files are mapped and read row by row; everything the
header says is checked against the file before it is used.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import FormatError, Unsupported
from edgellm.tools.ggml_types import bf16_to_f32

MAX_HEADER = 100_000_000  # bytes; the format's own limit
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "u1",
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    """
    A tensor of a mapped file.

    Attributes:
        name: As in the file.
        dtype: One of DTYPES.
        shape: Slowest dimension first.
        data: Its numbers, flat, in the file's own type (bf16 as the 16 bits).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[Any]

    def rows(self, index: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows as float32; a row lies along the last dimension, and of one dimension there is one row."""
        matrix = self.data.reshape(-1, self.shape[-1] if self.shape else 1)[index]
        if self.dtype == "BF16":
            return bf16_to_f32(matrix)
        return matrix.astype(np.float32)

    @property
    def n_rows(self) -> int:
        """How many rows it has."""
        return math.prod(self.shape[:-1])


def read(path: Path) -> dict[str, Tensor]:
    """
    The tensors of a file by name, in its order.

    Raises:
        FileError: It cannot be read.
        FormatError: It is not a safetensors file, or damaged, or not complete.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length < 2 or length > min(MAX_HEADER, size - 8):
            raise FormatError(
                f"{path.name} is no safetensors file, or its download is not complete: its header claims {length} "
                f"bytes of {size}"
            )
        header = _header(path, file.read(length))
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            found[name] = _tensor(path, name, entry, memoryview(mapped or b"")[8 + length :])
    return found


def _header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path.name}: the header is not JSON ({error}); the file is damaged") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path.name}: the header is not a JSON object; the file is damaged")
    return header


def _tensor(path: Path, name: str, entry: Any, data: memoryview) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sound = all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, begin, end)) and isinstance(dtype, str)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise FormatError(f"{path.name}: the header's entry of tensor '{name}' is damaged: {str(entry)[:100]}")
    if dtype not in DTYPES:
        raise Unsupported(
            f"{path.name}: tensor '{name}' has the type {dtype}; convert reads {', '.join(DTYPES)}: use the folder "
            "of the model before it was quantized"
        )
    if end > len(data):
        raise FormatError(
            f"{path.name}: tensor '{name}' lies at bytes {begin} to {end} of the data, which has {len(data)}: "
            "the download is not complete, or the file is damaged"
        )
    wanted = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if end - begin != wanted:
        raise FormatError(
            f"{path.name}: tensor '{name}' of type {dtype} and shape {list(shape)} needs {wanted} bytes and has "
            f"{end - begin}; the file is damaged"
        )
    return Tensor(name, dtype, shape, np.frombuffer(data[begin:end], DTYPES[dtype]))
