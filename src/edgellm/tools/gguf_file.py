"""
A GGUF file as its parts: every key with the bytes of its value, every tensor with its place, nothing of the data.

The library checks the header first (`edgellm.inspect`), so that a damaged file gets the same sentence here as
everywhere, and what follows reads a sound one. Source of the format: ggml's docs/gguf.md.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edgellm.errors import FormatError, InvalidArgument
from edgellm.tools.ggml_types import ARRAY, STRING, TENSOR_TYPES, VALUE_FORMATS, VALUE_NAMES, TensorType

CHUNK = 4 << 20  # bytes read at a time
Report = Callable[[str, int, int], None]  # what is under way, bytes done, bytes in all


def no_report(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Entry:
    """
    A key with its value as the file has it.

    Attributes:
        key: Its name.
        type: Number of the value's type.
        item_type: For an array the type of its items, else None.
        count: For an array the number of its items, else 1.
        payload: The value's bytes without its type number; an array's begin with item type and count.
        offset: Where the payload stands in the file; -1 for a value that is not from a file.
    """

    key: str
    type: int
    item_type: int | None
    count: int
    payload: bytes
    offset: int = -1

    @property
    def type_name(self) -> str:
        """As ``u32``, or ``str[]`` for an array of strings."""
        return VALUE_NAMES[self.type] if self.item_type is None else f"{VALUE_NAMES[self.item_type]}[]"

    def value(self, limit: int | None = None) -> Any:
        """The value as a Python object; of an array only the first *limit* items. Bytes that are not UTF-8 stay so."""
        if self.item_type is None:
            return _scalar(self.payload, 0, self.type)[0]
        count = self.count if limit is None else min(limit, self.count)
        if self.item_type != STRING:
            return list(struct.unpack_from(f"<{count}{VALUE_FORMATS[self.item_type][1]}", self.payload, 12))
        items, at = [], 12
        for _ in range(count):
            item, at = _scalar(self.payload, at, STRING)
            items.append(item)
        return items


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's entry; `shape` as the file has it, fastest dimension first; `offset` counts from the data's start."""

    name: str
    shape: tuple[int, ...]
    type_number: int
    offset: int

    @property
    def type(self) -> TensorType:
        """Name and block size of its type."""
        return TENSOR_TYPES[self.type_number]

    @property
    def elements(self) -> int:
        """How many weights it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def n_bytes(self) -> int:
        """How many bytes of data."""
        return self.elements // self.type.elements * self.type.n_bytes


class GgufFile:
    """
    An open GGUF file.

    Attributes:
        path, size: The file.
        version, alignment: As its header says.
        entries: Its keys in the file's order.
        tensors: Its tensors in the file's order.
        data_start: Where the data begins.

    Raises:
        FileError, FormatError, Unsupported: It cannot be read, is damaged, or is not GGUF.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _check(self.path)
        self._file = self.path.open("rb")
        self._position = threading.Lock()
        self.size = os.fstat(self._file.fileno()).st_size
        try:
            with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._read_header(data)
        except (struct.error, KeyError, ValueError, OverflowError) as error:
            self._file.close()
            raise FormatError(f"{self.path.name}: the header cannot be read: {error}") from error

    def _read_header(self, data: mmap.mmap) -> None:
        self.version, n_tensors, n_keys = struct.unpack_from("<IQQ", data, 4)
        self.entries: dict[str, Entry] = {}
        self.tensors: list[TensorInfo] = []
        at = 24
        for _ in range(n_keys):
            key, at = _scalar(data, at, STRING)
            (kind,) = struct.unpack_from("<I", data, at)
            item_type, count, end = _extent(data, at + 4, kind)
            if end > len(data):
                raise ValueError(f"the value of key '{key}' goes past the end of the file")
            self.entries[key] = Entry(key, kind, item_type, count, data[at + 4 : end], at + 4)
            at = end
        for _ in range(n_tensors):
            name, at = _scalar(data, at, STRING)
            (n_dims,) = struct.unpack_from("<I", data, at)
            *shape, kind, offset = struct.unpack_from(f"<{n_dims}QIQ", data, at + 4)
            at += 16 + 8 * n_dims
            info = TensorInfo(name, tuple(shape), kind, offset)
            if kind not in TENSOR_TYPES:
                raise ValueError(f"tensor '{name}' has type {kind}, which this version does not know")
            self.tensors.append(info)
        self.alignment = int(self.entries["general.alignment"].value()) if "general.alignment" in self.entries else 32
        self.data_start = at + -at % self.alignment if n_tensors else at
        for info in self.tensors:
            if self.data_start + info.offset + info.n_bytes > self.size:
                raise ValueError(f"the data of tensor '{info.name}' goes past the end of the file")

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.name

    def read(self, offset: int, n_bytes: int) -> bytes:
        """
        Bytes of the file. Threads may read at the same time.

        Raises:
            FormatError: It ends before.
        """
        with self._position:  # a file has one; os.pread would need none, but Windows lacks it
            self._file.seek(offset)
            data = self._file.read(n_bytes)
        if len(data) != n_bytes:
            raise FormatError(f"{self.name} became shorter while it was read")
        return data

    def chunks(self, offset: int, n_bytes: int, chunk: int = CHUNK) -> Iterator[bytes]:
        """*n_bytes* bytes from *offset* on, at most *chunk* at a time."""
        end = offset + n_bytes
        while offset < end:
            step = min(chunk, end - offset)
            yield self.read(offset, step)
            offset += step

    def tensor_chunks(self, tensor: TensorInfo) -> Iterator[bytes]:
        """A tensor's data, whole blocks at a time."""
        chunk = CHUNK // tensor.type.n_bytes * tensor.type.n_bytes
        return self.chunks(self.data_start + tensor.offset, tensor.n_bytes, chunk)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check(path: Path) -> None:
    from edgellm import inspect

    try:
        inspect(path, 0)
    except InvalidArgument as error:
        if "of a split model" not in str(error):  # the later parts of one are sound files, which alone run no model
            raise


def _scalar(data: bytes | mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    """The value of a type that is no array, and where it ends."""
    if kind == STRING:
        (length,) = struct.unpack_from("<Q", data, at)
        end = at + 8 + length
        if end > len(data):
            raise ValueError(f"a string of {length} bytes at byte {at} goes past the end of the file")
        return data[at + 8 : end].decode("utf-8", "surrogateescape"), end
    (value,) = struct.unpack_from(VALUE_FORMATS[kind], data, at)
    return value, at + struct.calcsize(VALUE_FORMATS[kind])


def _extent(data: mmap.mmap, at: int, kind: int) -> tuple[int | None, int, int]:
    """Item type, count and end of the value of type *kind* that begins at *at*."""
    if kind != ARRAY:
        if kind == STRING:
            return None, 1, at + 8 + int(struct.unpack_from("<Q", data, at)[0])
        return None, 1, at + struct.calcsize(VALUE_FORMATS[kind])
    item_type, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if item_type != STRING:
        return item_type, count, at + count * struct.calcsize(VALUE_FORMATS[item_type])
    length = struct.Struct("<Q").unpack_from
    for _ in range(count):
        at += 8 + length(data, at)[0]
    return item_type, count, at
