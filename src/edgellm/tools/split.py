"""
Split a GGUF file into parts, and merge parts into one file.

Naming and keys as llama.cpp's gguf-split writes them: NAME-00001-of-00003.gguf, ``split.no`` (u16), ``split.count``
(u16) and ``split.tensors.count`` (i32); the first part has all other keys.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import FormatError, InvalidArgument
from edgellm.tools.gguf_file import Entry, GgufFile, Report, TensorInfo, no_report
from edgellm.tools.gguf_header import Progress, copy_tensors, entry, header, placed
from edgellm.tools.outputs import Outputs

MAX_PARTS = 65535  # what a u16 counts
KEYS = ("split.no", "split.count", "split.tensors.count")
_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class Part:
    """One file of a split: its path, and its tensors in the source's terms."""

    path: Path
    tensors: list[TensorInfo]


def part_path(prefix: str, number: int, count: int) -> Path:
    """The file of part *number*, counted from 0."""
    return Path(f"{prefix}-{number + 1:05d}-of-{count:05d}.gguf")


def _part_keys(source: GgufFile, number: int, count: int, n_tensors: int) -> list[Entry]:
    keys = [e for key, e in source.entries.items() if key not in KEYS and (number == 0 or key == "general.alignment")]
    values = zip(KEYS, ("u16", "u16", "i32"), (number, count, n_tensors), strict=True)
    return keys + [entry(key, kind, value) for key, kind, value in values]


def plan(source: GgufFile, prefix: str, max_bytes: int | None, max_tensors: int | None) -> list[Part]:
    """
    Which tensors go into which part, in the file's order.

    Args:
        source: The file.
        prefix: Path of the parts without what the convention adds.
        max_bytes: No part is larger, header included.
        max_tensors: No part has more tensors.

    Raises:
        InvalidArgument: A limit cannot be kept, or the file is a part already.
    """
    if "split.count" in source.entries and source.entries["split.count"].value() > 1:
        raise InvalidArgument(f"{source.name} is a part of a split file: merge it first with 'edgellm gguf merge'")
    groups: list[list[TensorInfo]] = [[]]
    head, data = _fixed_bytes(source, 0), 0
    for tensor in source.tensors:
        info, padded = 24 + len(tensor.name.encode()) + 8 * len(tensor.shape), _padded(source, tensor.n_bytes)
        full = max_tensors is not None and len(groups[-1]) >= max_tensors
        too_large = max_bytes is not None and _padded(source, head + info) + data + padded > max_bytes
        if groups[-1] and (full or too_large):
            groups.append([])
            head, data = _fixed_bytes(source, len(groups) - 1), 0
        groups[-1].append(tensor)
        head, data = head + info, data + padded
        if max_bytes is not None and (size := _padded(source, head) + data) > max_bytes:
            raise InvalidArgument(
                f"the part with tensor '{tensor.name}' ({tensor.n_bytes} bytes) takes {size} bytes, more than the "
                f"{max_bytes} a part may have: use a larger --max-size"
            )
    if len(groups) > MAX_PARTS:
        raise InvalidArgument(f"that makes {len(groups)} parts, the limit is {MAX_PARTS}: use a larger limit")
    return [Part(part_path(prefix, number, len(groups)), group) for number, group in enumerate(groups)]


def _padded(source: GgufFile, n_bytes: int) -> int:
    return n_bytes + -n_bytes % source.alignment


def _fixed_bytes(source: GgufFile, number: int) -> int:
    """The header of part *number* without its tensors' entries."""
    return 24 + sum(12 + len(e.key.encode()) + len(e.payload) for e in _part_keys(source, number, 1, 1))


def split(
    path: Path,
    out: str,
    *,
    max_bytes: int | None = None,
    max_tensors: int | None = None,
    force: bool = False,
    report: Report = no_report,
) -> list[Part]:
    """
    Split a file.

    Args:
        path: The file.
        out: Path of the parts without ``-00001-of-00003.gguf``; a ``.gguf`` at its end is left out.
        max_bytes: See `plan`.
        max_tensors: See `plan`.
        force: Replace files that exist.
        report: Told of the bytes copied.

    Returns:
        The parts written.

    Raises:
        InvalidArgument, FileError, FormatError: See `plan` and `Outputs`.
    """
    with GgufFile(path) as source:
        parts = plan(source, out.removesuffix(".gguf"), max_bytes, max_tensors)
        progress = Progress(report, f"splitting {source.name}", sum(t.n_bytes for t in source.tensors))
        with Outputs([part.path for part in parts], source.size + len(parts) * 4096, force=force) as outputs:
            for number, part in enumerate(parts):
                keys = _part_keys(source, number, len(parts), len(source.tensors))
                with outputs.open(number) as file:
                    file.write(header(keys, placed(part.tensors, source.alignment), source.alignment))
                    copy_tensors(source, part.tensors, file, source.alignment, progress)
    return parts


def open_parts(first: Path, stack: ExitStack) -> list[GgufFile]:
    """
    All parts of the split file whose first part is *first*, checked against each other.

    Raises:
        InvalidArgument: It is not a first part.
        FileError, FormatError: A part is missing, damaged or of another split.
    """
    opened = [stack.enter_context(GgufFile(first))]
    count = opened[0].entries["split.count"].value() if "split.count" in opened[0].entries else 0
    match = _NAME.fullmatch(first.name)
    if count < 1 or match is None:
        raise InvalidArgument(f"{first.name} is no part of a split file, whose names end in -00001-of-00003.gguf")
    if int(match[2]) != 1 or opened[0].entries["split.no"].value() != 0:
        raise InvalidArgument(f"{first.name} is part {int(match[2])} of {count}: name the first part")
    for number in range(1, count):
        part = stack.enter_context(GgufFile(part_path(str(first.parent / match[1]), number, count)))
        found = [part.entries[key].value() if key in part.entries else None for key in KEYS[:2]]
        if found != [number, count]:
            raise FormatError(f"{part.name} says it is part {found[0]} of {found[1]}, not {number} of {count}")
        opened.append(part)
    total = sum(len(part.tensors) for part in opened)
    wanted = opened[0].entries[KEYS[2]].value() if KEYS[2] in opened[0].entries else total
    names = {t.name for part in opened for t in part.tensors}
    if total != wanted or len(names) != total:
        raise FormatError(f"the parts have {len(names)} tensors together, {first.name} counts {wanted}")
    return opened


def merge(first: Path, out: Path, *, force: bool = False, report: Report = no_report) -> int:
    """
    Merge the parts of a split file into one file.

    Args:
        first: The first part; the others lie beside it.
        out: The file to write.
        force: Replace a file that exists.
        report: Told of the bytes copied.

    Returns:
        How many parts there were.

    Raises:
        InvalidArgument, FileError, FormatError: See `open_parts` and `Outputs`.
    """
    with ExitStack() as stack:
        parts = open_parts(first, stack)
        alignment = parts[0].alignment
        everything = [tensor for part in parts for tensor in part.tensors]
        keys = [e for key, e in parts[0].entries.items() if key not in KEYS]
        head = header(keys, placed(everything, alignment), alignment)
        n_bytes = sum(t.n_bytes + -t.n_bytes % alignment for t in everything)
        progress = Progress(report, f"merging {len(parts)} parts", sum(t.n_bytes for t in everything))
        with Outputs([out], len(head) + n_bytes, force=force) as outputs, outputs.open() as file:
            file.write(head)
            for part in parts:
                copy_tensors(part, part.tensors, file, alignment, progress)
    return len(parts)
