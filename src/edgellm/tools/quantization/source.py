"""The file or the parts that are quantized, as one list of tensors that are read by rows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import Unsupported
from edgellm.tools.gguf_file import GgufFile, TensorInfo
from edgellm.tools.quantization.file_types import row_bytes
from edgellm.tools.split import KEYS, open_parts

Bytes = NDArray[np.uint8]


def tensors_module() -> Any:
    """
    `edgellm.tensors`, imported when something is to be quantized.

    Raises:
        Unsupported: It is not part of this installation.
    """
    try:
        from edgellm import tensors
    except ImportError as error:
        raise Unsupported(f"quantizing needs edgellm.tensors: {error}") from None
    return tensors


@dataclass(frozen=True)
class Weights:
    """One tensor and the file it is in."""

    info: TensorInfo
    file: GgufFile

    @property
    def n_per_row(self) -> int:
        """Values in a row."""
        return self.info.shape[0]

    @property
    def n_rows(self) -> int:
        """Rows, of all matrices together."""
        return self.info.elements // max(1, self.n_per_row)

    @property
    def rows_per_matrix(self) -> int:
        """Rows of one matrix; experts are several."""
        return self.info.shape[1] if len(self.info.shape) > 1 else 1

    def rows(self, first: int, n: int) -> Bytes:
        """The bytes of *n* rows, uint8 [n, bytes of a row]."""
        size = row_bytes(self.info.type, self.n_per_row)
        at = self.file.data_start + self.info.offset + first * size
        return np.frombuffer(self.file.read(at, n * size), np.uint8).reshape(n, size)


class Source:
    """
    An open model: its keys, and the tensors of all its parts.

    Raises:
        FileError, FormatError, InvalidArgument: It cannot be read, is damaged, or is a later part of a split model.
    """

    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        self.path = path
        first = self._stack.enter_context(GgufFile(path))
        parts = [first]
        if KEYS[1] in first.entries and first.entries[KEYS[1]].value() > 1:
            self._stack.close()
            parts = open_parts(path, self._stack)
        self.entries = {key: entry for key, entry in parts[0].entries.items() if key not in KEYS}
        self.alignment = parts[0].alignment
        self.tensors = [Weights(info, part) for part in parts for info in part.tensors]
        self.header_bytes = sum(part.data_start for part in parts)

    def number(self, key: str, default: int = 0) -> int:
        """The whole number behind ARCHITECTURE.key; the first of an array."""
        found = self.entries.get(f"{self.architecture}.{key}")
        if found is None:
            return default
        value = found.value(1)
        value = value[0] if isinstance(value, list) and value else value
        return value if isinstance(value, int) else default

    @property
    def architecture(self) -> str:
        """``general.architecture``, or ""."""
        found = self.entries.get("general.architecture")
        return str(found.value()) if found is not None else ""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
