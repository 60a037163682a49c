"""A GGUF file's header as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgellm.tools.gguf_file import GgufFile


def dump(path: Path, limit: int | None = None) -> dict[str, Any]:
    """
    What a file's header says.

    Args:
        path: The file.
        limit: Items of an array that are given; None: all.

    Returns:
        ``{"file", "size", "version", "alignment", "data_start", "keys": [{"key", "type", "count", "value"}],
        "tensors": [{"name", "type", "shape", "offset", "n_bytes"}]}``; shapes fastest dimension first, offsets from
        the data's start.

    Raises:
        FileError, FormatError: The file cannot be read, or is damaged.
    """
    with GgufFile(path) as file:
        return {
            "file": str(path),
            "size": file.size,
            "version": file.version,
            "alignment": file.alignment,
            "data_start": file.data_start,
            "keys": [
                {"key": e.key, "type": e.type_name, "count": e.count, "value": e.value(limit)}
                for e in file.entries.values()
            ],
            "tensors": [
                {
                    "name": t.name,
                    "type": t.type.name,
                    "shape": list(t.shape),
                    "offset": t.offset,
                    "n_bytes": t.n_bytes,
                }
                for t in file.tensors
            ],
        }
