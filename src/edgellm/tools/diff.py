"""What differs between two GGUF files: keys, tensors, and how far apart the weights are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.tools.ggml_types import to_float
from edgellm.tools.gguf_file import CHUNK, Entry, GgufFile, Report, TensorInfo, no_report
from edgellm.tools.gguf_header import Progress

SHOWN = 8  # items of an array in a report


def diff(a: Path, b: Path, *, values: bool = True, report: Report = no_report) -> dict[str, Any]:
    """
    Compare two files.

    Args:
        a: One file.
        b: The other.
        values: Also compare the tensors' data.
        report: Told of the bytes compared.

    Returns:
        ``{"same": bool, "metadata": {"added": [...], "removed": [...], "changed": [...]}, "tensors": {...}}``. A
        changed tensor has those of "type", "shape" and "max_abs_diff" that differ; "max_abs_diff" is None where the
        type's values cannot be read here.

    Raises:
        FileError, FormatError: A file cannot be read, or is damaged.
    """
    with GgufFile(a) as left, GgufFile(b) as right:
        metadata = _metadata(left, right)
        tensors = _tensors(left, right, values, report)
    return {
        "same": not any([*metadata.values(), *tensors.values()]),
        "metadata": metadata,
        "tensors": tensors,
    }


def _metadata(left: GgufFile, right: GgufFile) -> dict[str, list[Any]]:
    both = [key for key in left.entries if key in right.entries]
    return {
        "removed": [_shown(key, left.entries[key]) for key in left.entries if key not in right.entries],
        "added": [_shown(key, right.entries[key]) for key in right.entries if key not in left.entries],
        "changed": [
            _changed(left.entries[key], right.entries[key])
            for key in both
            if (left.entries[key].type, left.entries[key].payload)
            != (right.entries[key].type, right.entries[key].payload)
        ],
    }


def _shown(key: str, e: Entry) -> dict[str, Any]:
    return {"key": key, "type": e.type_name, "count": e.count, "value": e.value(SHOWN)}


def _changed(old: Entry, new: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {"key": old.key, "old": _shown(old.key, old), "new": _shown(new.key, new)}
    if old.item_type is not None and old.type_name == new.type_name:
        pairs = zip(old.value(), new.value(), strict=False)
        found["first_difference"] = next((i for i, (x, y) in enumerate(pairs) if x != y), min(old.count, new.count))
    return found


def _tensors(left: GgufFile, right: GgufFile, values: bool, report: Report) -> dict[str, list[Any]]:
    old, new = ({t.name: t for t in file.tensors} for file in (left, right))
    both = [t for t in left.tensors if t.name in new]
    same_shape = [t for t in both if _shape(t) == _shape(new[t.name])]
    progress = Progress(report, "comparing", sum(t.n_bytes for t in same_shape) if values else 0)
    changed = []
    for tensor in both:
        found = _tensor(left, right, tensor, new[tensor.name], values, progress)
        if found:
            changed.append({"name": tensor.name, **found})
    return {
        "removed": [_tensor_shown(t) for t in left.tensors if t.name not in new],
        "added": [_tensor_shown(t) for t in right.tensors if t.name not in old],
        "changed": changed,
    }


def _shape(tensor: TensorInfo) -> tuple[int, ...]:
    """Without the ones at its end, which mean nothing."""
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _tensor_shown(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "type": tensor.type.name, "shape": list(tensor.shape)}


def _tensor(
    left: GgufFile, right: GgufFile, old: TensorInfo, new: TensorInfo, values: bool, progress: Progress
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if old.type_number != new.type_number:
        found["type"] = [old.type.name, new.type.name]
    if _shape(old) != _shape(new):
        found["shape"] = [list(old.shape), list(new.shape)]
    elif values:
        differ, distance = _distance(left, right, old, new, progress)
        if differ:
            found["max_abs_diff"] = distance
    return found


def _distance(
    left: GgufFile, right: GgufFile, old: TensorInfo, new: TensorInfo, progress: Progress
) -> tuple[bool, float | None]:
    """Whether the weights differ, and by how much at most; NaN counts as infinitely far from a number."""
    differ, largest = False, 0.0
    for a, b in _pieces(left, right, old, new):
        progress.add(len(a))
        if old.type_number == new.type_number and a == b:
            continue
        x, y = to_float(a, old.type), to_float(b, new.type)
        if x is None or y is None:
            return True, None
        differ = differ or old.type_number == new.type_number or not np.array_equal(x, y, equal_nan=True)
        with np.errstate(invalid="ignore"):
            apart = np.where(x == y, 0.0, np.abs(x.astype(np.float64) - y))
        apart[np.isnan(x) & np.isnan(y)] = 0
        largest = max(largest, float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0)))
    return differ, largest


def _pieces(left: GgufFile, right: GgufFile, old: TensorInfo, new: TensorInfo) -> Iterator[tuple[bytes, bytes]]:
    """The same weights of both."""
    step = CHUNK // 4 // 256 * 256  # whole blocks of every type
    for start in range(0, old.elements, step):
        count = min(step, old.elements - start)
        yield _bytes(left, old, start, count), _bytes(right, new, start, count)


def _bytes(file: GgufFile, tensor: TensorInfo, start: int, count: int) -> bytes:
    kind = tensor.type
    offset = file.data_start + tensor.offset + start // kind.elements * kind.n_bytes
    return file.read(offset, count // kind.elements * kind.n_bytes)
