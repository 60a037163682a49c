"""
Quantize a GGUF file: first a plan, tensor by tensor, then the file.

Tensors are read, converted and written a few rows at a time, by threads that share the rows; what is in memory at once
is some tens of megabytes, whatever the model. The bytes are those of ggml's own quantizers, so a file made here equals
one of llama.cpp's llama-quantize tensor by tensor.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgellm.errors import InvalidArgument, OutOfMemory
from edgellm.tools.gguf_file import Entry, Report, TensorInfo, no_report
from edgellm.tools.gguf_header import Progress, entry, header, placed
from edgellm.tools.outputs import Outputs
from edgellm.tools.quantization import mixture
from edgellm.tools.quantization.file_types import FLOATS, NUMBERS, TYPES, FileType, file_type, row_bytes, tensor_type
from edgellm.tools.quantization.imatrix import Floats, Imatrix
from edgellm.tools.quantization.source import Bytes, Source, Weights, tensors_module

CHUNK = 1 << 16  # weights that one thread converts at a time: a tenth of a second in the slowest types
QUANTIZATION_VERSION = 2  # of ggml's formats


@dataclass(frozen=True)
class PlannedTensor:
    """What becomes of one tensor: types by name, sizes in bytes."""

    name: str
    shape: tuple[int, ...]
    type: str
    new_type: str
    n_bytes: int
    new_bytes: int

    @property
    def changes(self) -> bool:
        """Whether its bytes are made anew."""
        return self.type != self.new_type


@dataclass(frozen=True)
class Plan:
    """
    What becomes of a file.

    Attributes:
        file_type: What the new file calls itself.
        tensors: In the file's order.
        n_bytes, new_bytes: Of all tensor data, before and after.
        warnings: Sentences for the user.
    """

    file_type: FileType
    tensors: list[PlannedTensor]
    warnings: list[str]

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors before."""
        return sum(t.n_bytes for t in self.tensors)

    @property
    def new_bytes(self) -> int:
        """Bytes of all tensors after."""
        return sum(t.new_bytes for t in self.tensors)


@dataclass(frozen=True)
class Wishes:
    """
    What the caller decides beyond the file type.

    Attributes:
        tensor_types: Patterns (regular expressions, searched in the name) and types; the first that matches counts.
        output_type: Of the head; with tied embeddings of these.
        embedding_type: Of the token embeddings.
        pure: No mixture: every matrix gets the file type's own type, where its rows fit.
        allow_requantize: Take tensors that are quantized already, with what they have lost.
    """

    tensor_types: Sequence[tuple[str, str]] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    pure: bool = False
    allow_requantize: bool = False


def plan(source: Source, name: str, wishes: Wishes | None = None, imatrix: Imatrix | None = None) -> Plan:
    """
    Decide what each tensor becomes.

    Args:
        source: The model.
        name: Of the file type, "Q4_K_M".
        wishes: See `Wishes`.
        imatrix: Importance of the columns.

    Raises:
        InvalidArgument: No such type, a pattern is wrong, a type does not fit a tensor's rows, a tensor is quantized
            already, or the type needs an importance matrix.
    """
    wishes = wishes or Wishes()
    kind = file_type(name)
    chosen = _choose(source, kind, wishes, imatrix is not None)
    return _checked(source, kind, chosen, wishes, imatrix)


def plan_types(source: Source, chosen: dict[str, str], wishes: Wishes, imatrix: Imatrix | None) -> Plan:
    """
    A plan from types chosen elsewhere, by name; the file is called after the type that most of its bytes have.

    Raises:
        InvalidArgument: As for `plan`.
    """
    sizes: dict[str, int] = {}
    for weights in source.tensors:
        kind = chosen.get(weights.info.name, "F32")
        sizes[kind] = sizes.get(kind, 0) + weights.n_rows * row_bytes(TYPES[kind], weights.n_per_row)
    base = max(sizes, key=lambda kind: sizes[kind])
    names = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
    return _checked(source, file_type(names.get(base, base)), chosen, wishes, imatrix)


def wanted_types(source: Source, wishes: Wishes) -> dict[str, str]:
    """Types by name of the tensors for which *wishes* names one."""
    marked = _choose(source, file_type("F32"), wishes, False)
    patterns = _patterns(wishes)
    outside = {"output.weight": wishes.output_type, **dict.fromkeys(mixture.EMBEDDINGS, wishes.embedding_type)}
    return {
        name: kind
        for name, kind in marked.items()
        if outside.get(name) or any(pattern.search(name) for pattern, _ in patterns)
    }


def facts(source: Source, imatrix: bool) -> mixture.Facts:
    """What mixtures depend on, read from the file."""
    names = [weights.info.name for weights in source.tensors]
    heads, kv_heads = source.number("attention.head_count"), source.number("attention.head_count_kv")
    kv_heads = kv_heads or heads
    layers = source.number("block_count")
    return mixture.Facts(
        arch=source.architecture,
        n_layer=layers,
        n_gqa=heads // kv_heads if kv_heads else 0,
        n_expert=source.number("expert_count"),
        tied="output.weight" not in names,
        imatrix=imatrix,
        n_values=mixture.count_values(names),
        wide=layers == 80 and heads != kv_heads and source.architecture in ("llama", "qwen2", "deci", "olmo"),
    )


def _choose(source: Source, kind: FileType, wishes: Wishes, imatrix: bool) -> dict[str, str]:
    """Types by name of all tensors that take part."""
    known = facts(source, imatrix)
    mix = mixture.Mixture(kind, known)
    patterns = _patterns(wishes)
    output = tensor_type(wishes.output_type).name if wishes.output_type else None
    embedding = tensor_type(wishes.embedding_type).name if wishes.embedding_type else None
    chosen: dict[str, str] = {}
    for weights in sorted(source.tensors, key=lambda w: mixture.layer_order(w.info.name)):
        name, shape = weights.info.name, weights.info.shape
        if not mixture.is_quantizable(name, shape):
            continue
        manual = next((to for pattern, to in patterns if pattern.search(name)), None)
        if embedding and name in mixture.EMBEDDINGS and not (manual and name == mixture.EMBEDDINGS[1]):
            chosen[name] = embedding
        elif output and name == "output.weight":
            chosen[name] = output
        elif manual:
            chosen[name] = mixture.fitting(manual, shape[0])
        elif kind.base in FLOATS:
            chosen[name] = kind.base
        else:
            wanted = kind.base if wishes.pure else mix.choose(name, shape, output)
            chosen[name] = mixture.fitting(wanted, shape[0])
    return chosen


def _patterns(wishes: Wishes) -> list[tuple[re.Pattern[str], str]]:
    return [(_compiled(pattern), tensor_type(name).name) for pattern, name in wishes.tensor_types]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InvalidArgument(f"'{pattern}' is no regular expression: {error}") from None


def _checked(source: Source, kind: FileType, chosen: dict[str, str], wishes: Wishes, imatrix: Imatrix | None) -> Plan:
    planned, missing, replaced = [], [], 0
    for weights in source.tensors:
        info = weights.info
        to = chosen.get(info.name, info.type.name)
        if info.shape[0] % TYPES[to].elements:
            raise InvalidArgument(
                f"{info.name} has rows of {info.shape[0]} values; {to} has blocks of {TYPES[to].elements}"
            )
        if to != info.type.name:
            _check_change(info, to, kind, wishes, imatrix)
            replaced += info.type.name not in FLOATS
            if imatrix is not None and info.name not in imatrix.sums and info.name.startswith("blk."):
                missing.append(info.name)
        n_bytes = weights.n_rows * row_bytes(TYPES[to], info.shape[0])
        planned.append(PlannedTensor(info.name, info.shape, info.type.name, to, info.n_bytes, n_bytes))
    warnings = []
    if missing:
        warnings.append(f"tensors that the importance matrix knows nothing of: {len(missing)}, such as {missing[0]}")
    if replaced:
        warnings.append(
            f"tensors that are quantized already and lose more now: {replaced}; a file made from F16 or BF16 is better"
        )
    return Plan(kind, planned, warnings)


def _check_change(info: TensorInfo, to: str, kind: FileType, wishes: Wishes, imatrix: Imatrix | None) -> None:
    if info.type.name not in FLOATS and not wishes.allow_requantize:
        raise InvalidArgument(
            f"{info.name} is {info.type.name} already: quantize the F16, BF16 or F32 file, or add --allow-requantize"
        )
    known = imatrix is not None and info.name in imatrix.sums
    if mixture.needs_imatrix(info.name, to, kind.name) and not known:
        raise InvalidArgument(
            f"{info.name} as {to} needs an importance matrix"
            + (" that knows it" if imatrix else ": make one with 'edgellm imatrix' and pass it as --imatrix")
        )
    matrices = info.elements // (info.shape[0] * (info.shape[1] if len(info.shape) > 1 else 1))
    if known and imatrix is not None and imatrix.sums[info.name].size not in (info.shape[0], info.shape[0] * matrices):
        if info.name in mixture.EMBEDDINGS:
            return
        raise InvalidArgument(
            f"the importance matrix has {imatrix.sums[info.name].size} values for {info.name}, whose columns are "
            f"{info.shape[0] * matrices}: it belongs to another model"
        )


# ---- the file --------------------------------------------------------------------------------------------------------


def write(
    source: Source,
    made: Plan,
    out: Path,
    *,
    imatrix: Imatrix | None = None,
    imatrix_name: str = "",
    threads: int = 1,
    force: bool = False,
    report: Report = no_report,
) -> int:
    """
    Write the planned file, complete or not at all.

    Args:
        source: The model.
        made: What `plan` gave for it.
        out: The file; it appears when it is complete.
        imatrix: Importance of the columns.
        imatrix_name: Of the file it came from, which the new file keeps.
        threads: That convert.
        force: Replace a file that exists.
        report: Told of the bytes read.

    Returns:
        Bytes of the file.

    Raises:
        InvalidArgument: A value is not finite or too large for its type, or *out* exists.
        FileError, FormatError: See `Outputs` and `Source`.
        Unsupported: `edgellm.tensors` is not installed.
    """
    infos = placed((TensorInfo(t.name, t.shape, NUMBERS[t.new_type], 0) for t in made.tensors), source.alignment)
    head = header(_keys(source, made, imatrix, imatrix_name), infos, source.alignment)
    total = len(head) + sum(info.n_bytes + -info.n_bytes % source.alignment for info in infos)
    if out.exists() and out.samefile(source.path):
        raise InvalidArgument(f"{out} is the file that is read: write another one")
    progress = Progress(report, f"quantizing {source.path.name}", made.n_bytes)
    with Outputs([out], total, force=force) as outputs, outputs.open() as file:
        file.write(head)
        with _Threads(threads) as pool:
            for weights, planned in zip(source.tensors, made.tensors, strict=True):
                _write_tensor(weights, planned, _means(weights, imatrix), file, pool, progress)
                file.write(bytes(-planned.new_bytes % source.alignment))
    return total


def _keys(source: Source, made: Plan, imatrix: Imatrix | None, imatrix_name: str) -> list[Entry]:
    keys = {
        **source.entries,
        "general.quantization_version": entry("general.quantization_version", "u32", QUANTIZATION_VERSION),
        "general.file_type": entry("general.file_type", "u32", made.file_type.number),
    }
    if imatrix is not None:
        for key, kind, value in (
            ("file", "str", imatrix_name),
            ("dataset", "str", imatrix.datasets[0] if imatrix.datasets else ""),
            ("entries_count", "u32", len(imatrix.sums)),
            ("chunks_count", "u32", imatrix.chunk_count),
        ):
            keys[f"quantize.imatrix.{key}"] = entry(f"quantize.imatrix.{key}", kind, value)
    return list(keys.values())


def _means(weights: Weights, imatrix: Imatrix | None) -> Floats | None:
    """float32 [1 or n_matrices, n_in], or None."""
    means = imatrix.means(weights.info.name) if imatrix is not None else None
    if means is None or means.size % weights.n_per_row:
        return None
    return means.reshape(-1, weights.n_per_row)


class _Threads(ThreadPoolExecutor):
    """Threads that stop after the chunk at hand when the block is left by an exception."""

    def __init__(self, n: int) -> None:
        super().__init__(max_workers=max(1, n))
        self.ahead = 2 * max(1, n)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self.shutdown(wait=True, cancel_futures=kind is not None)


def chunks(weights: Weights) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each piece of work; none crosses from one matrix to the next."""
    step = max(1, CHUNK // weights.n_per_row)
    for first in range(0, weights.n_rows, weights.rows_per_matrix):
        end = first + weights.rows_per_matrix
        for row in range(first, end, step):
            yield row, min(step, end - row)


def convert(rows: Bytes, kind: str, to: str, n_per_row: int, means: Floats | None) -> Bytes:
    """Rows of one type as rows of another: uint8 [n, bytes of a row] of each."""
    tensors = tensors_module()
    floats = tensors.dequantize(rows, kind, (rows.shape[0], n_per_row))
    made: Bytes = tensors.quantize(floats, to, means)
    return made


def _write_tensor(
    weights: Weights, planned: PlannedTensor, means: Floats | None, file: BinaryIO, pool: _Threads, progress: Progress
) -> None:
    if not planned.changes:
        for data in weights.file.tensor_chunks(weights.info):
            file.write(data)
            progress.add(len(data))
        return
    pending: deque[tuple[int, int, Future[Bytes]]] = deque()

    def finish() -> None:
        first, n_bytes, future = pending.popleft()
        try:
            file.write(future.result().data)
        except (InvalidArgument, OutOfMemory) as error:
            raise type(error)(f"{weights.info.name}, from row {first} on: {error}") from None
        progress.add(n_bytes)

    for first, n in chunks(weights):
        rows = weights.rows(first, n)
        part = None if means is None else means[first // weights.rows_per_matrix % len(means)]
        job = pool.submit(convert, rows, planned.type, planned.new_type, weights.n_per_row, part)
        pending.append((first, rows.nbytes, job))
        if len(pending) >= pool.ahead:
            finish()
    while pending:
        finish()
