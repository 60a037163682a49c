"""
Importance matrices as files: for each tensor the mean square of every column of its inputs.

Written as GGUF (``general.type`` = imatrix): NAME.in_sum2 with the sums of squares, F32 [n_in, n_matrices], and
NAME.counts with the rows each sum has seen, F32 [1, n_matrices], beside ``imatrix.datasets``, ``imatrix.chunk_count``
and ``imatrix.chunk_size``: what llama.cpp's llama-imatrix writes and llama-quantize reads. The older .dat is read too.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import EdgellmError, FileError, FormatError
from edgellm.tools.ggml_types import TENSOR_TYPES
from edgellm.tools.gguf_file import GgufFile, TensorInfo
from edgellm.tools.gguf_header import entry, header, placed
from edgellm.tools.outputs import Outputs

Floats = NDArray[np.float32]
SUMS, COUNTS = ".in_sum2", ".counts"
_LIMIT = 1 << 30  # bytes of an old file that are read


@dataclass
class Imatrix:
    """
    What is known of a model's inputs.

    Attributes:
        sums: By tensor: float32 [n_matrices, n_in], sums of squares.
        counts: By tensor: float32 [n_matrices], rows that went into each sum.
        datasets: Names of the texts.
        chunk_count, chunk_size: How much of them: chunks, and tokens in each.
    """

    sums: dict[str, Floats] = field(default_factory=dict)
    counts: dict[str, Floats] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)
    chunk_count: int = 0
    chunk_size: int = 0

    def means(self, name: str) -> Floats | None:
        """float32 [n_matrices, n_in]; 1 where no row has been seen; None for a tensor that is not in it."""
        sums, counts = self.sums.get(name), self.counts.get(name)
        if sums is None or counts is None:
            return None
        seen = counts[:, None] > 0
        return np.where(seen, sums / np.where(seen, counts[:, None], 1), 1).astype(np.float32)


def write(path: Path, imatrix: Imatrix, *, force: bool = False) -> None:
    """
    Write an importance matrix.

    Raises:
        InvalidArgument, FileError: See `Outputs`.
    """
    keys = [
        entry("general.type", "str", "imatrix"),
        entry("imatrix.datasets", "str[]", list(imatrix.datasets)),
        entry("imatrix.chunk_count", "u32", imatrix.chunk_count),
        entry("imatrix.chunk_size", "u32", imatrix.chunk_size),
    ]
    names = sorted(imatrix.sums)
    infos = []
    for name in names:
        n_matrices, n_in = imatrix.sums[name].shape
        infos += [TensorInfo(name + SUMS, (n_in, n_matrices), 0, 0), TensorInfo(name + COUNTS, (1, n_matrices), 0, 0)]
    infos = placed(infos, 32)
    head = header(keys, infos, 32)
    arrays = [array for name in names for array in (imatrix.sums[name], imatrix.counts[name])]
    total = len(head) + sum(info.n_bytes + 32 for info in infos)
    with Outputs([path], total, force=force) as outputs, outputs.open() as file:
        file.write(head)
        for array in arrays:
            data = array.astype("<f4").tobytes()
            file.write(data + bytes(-len(data) % 32))


def read(path: Path) -> Imatrix:
    """
    Read an importance matrix.

    Raises:
        FileError, FormatError: The file cannot be read, or holds none.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    found = _read_gguf(path) if magic == b"GGUF" else _read_old(path)
    if not found.sums:
        raise FormatError(f"{path.name} holds no importance matrix")
    for name, sums in found.sums.items():
        if not (np.isfinite(sums).all() and (sums >= 0).all()):
            raise FormatError(f"{path.name}: {name} has a sum that is negative or not finite")
    return found


def _read_gguf(path: Path) -> Imatrix:
    with GgufFile(path) as file:
        found = Imatrix()
        if "imatrix.datasets" in file.entries:
            found.datasets = [str(name) for name in file.entries["imatrix.datasets"].value()]
        for key in ("chunk_count", "chunk_size"):
            if f"imatrix.{key}" in file.entries:
                setattr(found, key, int(file.entries[f"imatrix.{key}"].value()))
        by_name = {info.name: info for info in file.tensors}
        for info in file.tensors:
            if not info.name.endswith(SUMS):
                continue
            name = info.name.removesuffix(SUMS)
            counts = by_name.get(name + COUNTS)
            if counts is None:
                raise FormatError(f"{path.name}: {name} has sums but no counts")
            sums = _floats(file, info)
            rows = np.rint(_floats(file, counts))
            if rows.size == 0 or sums.size % rows.size:
                raise FormatError(f"{path.name}: {name} has {sums.size} sums and {rows.size} counts")
            found.sums[name], found.counts[name] = sums.reshape(rows.size, -1), rows
    return found


def _floats(file: GgufFile, info: TensorInfo) -> Floats:
    if TENSOR_TYPES[info.type_number].name != "F32":
        raise FormatError(f"{file.name}: {info.name} is {info.type.name}, not F32")
    return np.frombuffer(file.read(file.data_start + info.offset, info.n_bytes), "<f4").astype(np.float32)


def _read_old(path: Path) -> Imatrix:
    """int32 entries: int32 length, name, int32 calls, int32 n, float32 [n]; then int32 chunks and a text's name."""
    found = Imatrix()
    data = path.read_bytes() if path.stat().st_size <= _LIMIT else b""
    try:
        (n_entries,) = struct.unpack_from("<i", data)
        at = 4
        for _ in range(n_entries):
            (length,) = struct.unpack_from("<i", data, at)
            name = struct.unpack_from(f"<{length}s", data, at + 4)[0].decode()
            calls, n = struct.unpack_from("<ii", data, at + 4 + length)
            at += 12 + length
            sums = np.frombuffer(data, "<f4", n, at) if n > 0 else np.empty(0, np.float32)
            at += 4 * n
            found.sums[name] = sums.astype(np.float32)[None]
            found.counts[name] = np.array([max(1, calls)], np.float32)
    except (struct.error, UnicodeDecodeError, ValueError):
        raise FormatError(f"{path.name} is no importance matrix: neither GGUF nor the older .dat") from None
    with contextlib.suppress(struct.error):  # the rest may be missing
        found.chunk_count, length = struct.unpack_from("<ii", data, at)
        found.datasets = [struct.unpack_from(f"<{length}s", data, at + 8)[0].decode("utf-8", "replace")]
    return found


def from_activations(entries: Sequence[tuple[str, int, int, bytes, bytes]], keep: Mapping[str, bool]) -> Imatrix:
    """
    What an engine collected (`_native.Engine.activations`) as an importance matrix.

    Args:
        entries: Name, n_in, n_matrices, float64 sums, int64 rows of each tensor.
        keep: Whether a tensor outside the layers is wanted, by name.

    Raises:
        EdgellmError: A sum is not finite.
    """
    found = Imatrix()
    for name, n_in, n_matrices, sums, rows in entries:
        if not name.startswith("blk.") and not keep.get(name, False):
            continue
        values = np.frombuffer(sums, np.float64).reshape(n_matrices, n_in).astype(np.float32)
        if not np.isfinite(values).all():
            raise EdgellmError(f"the inputs of {name} are not finite: the model or its file may be damaged")
        found.sums[name] = values
        found.counts[name] = np.frombuffer(rows, np.int64).astype(np.float32)
    return found
