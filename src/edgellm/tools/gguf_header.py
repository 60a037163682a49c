"""Writes what GgufFile reads: values, headers, and copies of tensor data."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

from edgellm.errors import InvalidArgument
from edgellm.tools.ggml_types import ARRAY, STRING, VALUE_FORMATS, VALUE_NAMES
from edgellm.tools.gguf_file import Entry, GgufFile, Report, TensorInfo


def string(text: str) -> bytes:
    """A length of 8 bytes, then UTF-8; bytes that were none when read come back as they were."""
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def payload(kind: int, value: Any) -> bytes:
    """
    The bytes of one value that is no array.

    Raises:
        InvalidArgument: The value does not fit the type.
    """
    if kind == STRING:
        if not isinstance(value, str):
            raise InvalidArgument(f"{value!r} is not a string")
        return string(value)
    name = VALUE_NAMES[kind]
    wanted: tuple[type, ...] = (bool,) if name == "bool" else (int, float) if name in ("f32", "f64") else (int,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and name != "bool"):
        raise InvalidArgument(f"{value!r} is not a value of type {name}")
    try:
        return struct.pack(VALUE_FORMATS[kind], value)
    except (struct.error, OverflowError):
        raise InvalidArgument(f"{value!r} does not fit the type {name}") from None


def entry(key: str, type_name: str, value: Any) -> Entry:
    """
    A key with its value; *type_name* as in `Entry.type_name`.

    Raises:
        InvalidArgument: No such type, or the value does not fit it.
    """
    base = type_name.removesuffix("[]")
    if base not in VALUE_NAMES or base == "arr":
        known = ", ".join(name for name in VALUE_NAMES if name != "arr")
        raise InvalidArgument(f"'{type_name}' is no value type: use one of {known}, or one with [] behind it")
    kind = VALUE_NAMES.index(base)
    if base == type_name:
        return Entry(key, kind, None, 1, payload(kind, value))
    if not isinstance(value, list):
        raise InvalidArgument(f"{value!r} is not a list, as {type_name} needs")
    items = b"".join(payload(kind, item) for item in value)
    return Entry(key, ARRAY, kind, len(value), struct.pack("<IQ", kind, len(value)) + items)


def header(entries: Iterable[Entry], tensors: Sequence[TensorInfo], alignment: int, version: int = 3) -> bytes:
    """A file's bytes up to its data, padded to where the data begins."""
    keys = [string(e.key) + struct.pack("<I", e.type) + e.payload for e in entries]
    infos = [
        string(t.name) + struct.pack(f"<I{len(t.shape)}QIQ", len(t.shape), *t.shape, t.type_number, t.offset)
        for t in tensors
    ]
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % alignment)


def placed(tensors: Iterable[TensorInfo], alignment: int) -> list[TensorInfo]:
    """The tensors with offsets one after the other from 0 on."""
    out, offset = [], 0
    for tensor in tensors:
        out.append(TensorInfo(tensor.name, tensor.shape, tensor.type_number, offset))
        offset += tensor.n_bytes + -tensor.n_bytes % alignment
    return out


def copy_tensors(
    source: GgufFile, tensors: Iterable[TensorInfo], out: BinaryIO, alignment: int, progress: Progress
) -> None:
    """Append the data of *tensors*, which are of *source*, each padded."""
    for tensor in tensors:
        for chunk in source.tensor_chunks(tensor):
            out.write(chunk)
            progress.add(len(chunk))
        out.write(bytes(-tensor.n_bytes % alignment))


class Progress:
    """Counts bytes and reports them under one heading."""

    def __init__(self, report: Report, what: str, total: int) -> None:
        self._report, self._what, self._total, self._done = report, what, total, 0
        report(what, 0, total)

    def add(self, n_bytes: int) -> None:
        """So many more are done."""
        self._done += n_bytes
        self._report(self._what, self._done, self._total)
