"""Convert a model folder: read what is there, plan every tensor, write one file."""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.errors import EdgellmError, FormatError, InvalidArgument, Unsupported
from edgellm.tools.convert.families import FAMILIES
from edgellm.tools.convert.folder import Folder
from edgellm.tools.convert.safetensors import FLOATS, Tensor
from edgellm.tools.gguf_file import Report, no_report
from edgellm.tools.gguf_header import Progress
from edgellm.tools.outputs import Outputs

try:
    import gguf
except ImportError:
    raise Unsupported("convert needs a package that is not here: pip install 'edgellm[tools]'") from None

from edgellm.tools.convert import hparams, pooling, vocab, weights  # these use it

TYPES = ("auto", "f32", "f16", "bf16", "q8_0")
_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}


@dataclass(frozen=True)
class Result:
    """
    What a conversion made.

    Attributes:
        path: The file.
        n_bytes: Its size.
        architecture: Its family in GGUF.
        type: Of its matrices.
        n_tensors: How many tensors it has.
        tokenizer: A few words.
        warnings: What is not as in the folder, and what looked odd.
    """

    path: Path
    n_bytes: int
    architecture: str
    type: str
    n_tensors: int
    tokenizer: str
    warnings: list[str]


def convert(
    folder: Path,
    out: Path | None = None,
    type_name: str = "auto",
    *,
    pre: str | None = None,
    force: bool = False,
    report: Report = no_report,
) -> Result:
    """
    Write a GGUF file from a Hugging Face folder.

    Args:
        folder: Has config.json, the tokenizer's files and the weights as safetensors.
        out: The file; None: the folder's name and the type, in the current folder.
        type_name: Of TYPES, for the matrices; "auto": as most weights have it.
        pre: Name of the pre-tokenizer, instead of the one that is recognised.
        force: Replace a file that exists.
        report: Told of the bytes written.

    Raises:
        FileError, FormatError: The folder is incomplete or damaged.
        Unsupported: The model is of another family, or does something the runtime does not compute.
        InvalidArgument: A weight does not fit the type, or see `Outputs`.
    """
    source = Folder(folder)
    family = FAMILIES.get(source.architecture)
    if family is None:
        known = ", ".join(FAMILIES)
        raise Unsupported(f"{source.architecture} is not among the models that can be converted: {known}")
    tensors = source.tensors()
    wanted = _type(tensors) if type_name == "auto" else type_name.upper()
    if wanted not in _FILE_TYPES:
        raise InvalidArgument(f"'{type_name}' is no type to convert to: use one of {', '.join(TYPES)}")
    warnings: list[str] = []
    with _gguf_warnings(warnings), _one_sentence(folder):
        writer = gguf.GGUFWriter(None, arch=gguf.MODEL_ARCH_NAMES[getattr(gguf.MODEL_ARCH, family.arch)])
        factors = hparams.write(source, family, writer, warnings)
        planned = weights.plan(source, family, tensors, wanted, factors)
        for tensor in planned:
            writer.add_tensor_info(
                tensor.name, _shape(tensor), _dtype(), tensor.n_bytes, raw_dtype=weights.TYPES[tensor.type]
            )
        _general(source, writer, wanted, warnings)
        pooling.write(source, family, writer, warnings)
        n_vocab = next(t.source.shape[0] for t in planned if t.name == "token_embd.weight")
        if family.vocab_size:
            writer.add_vocab_size(n_vocab)
        words = vocab.write(source, writer, n_vocab, warnings, word_piece=family.encoder, pre=pre)
    path = out or Path(f"{folder.resolve().name}-{wanted}.gguf")
    n_bytes = _write(folder, path, writer, planned, force, report)
    return Result(path, n_bytes, writer.arch, wanted, len(planned), words, warnings)


def _type(tensors: dict[str, Tensor]) -> str:
    """The type most weights have."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in FLOATS:
            counts[tensor.dtype] += tensor.data.size
    name = counts.most_common(1)[0][0] if counts else "F32"
    return "F32" if name == "F64" else name


def _shape(tensor: weights.Planned) -> tuple[int, ...]:
    shape = tensor.source.shape
    return shape[:1] if len(shape) == 2 and shape[1] == 1 else shape  # a bias that was put in order


def _dtype() -> np.dtype[np.float32]:
    """Given beside raw_dtype it only says that the shape is one of weights, not of bytes."""
    return np.dtype(np.float32)


@contextmanager
def _one_sentence(folder: Path) -> Iterator[None]:
    """A net below the checks: JSON can be wrong in more ways than they name, and the `gguf` package reads it too."""
    try:
        yield
    except EdgellmError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error) as error:
        what = " ".join(str(error).split())[:200]
        raise FormatError(
            f"config.json or a tokenizer file of {folder} has something that does not belong there "
            f"({type(error).__name__}: {what}); EDGELLM_DEBUG=1 shows where it was read"
        ) from error


@contextmanager
def _gguf_warnings(warnings: list[str]) -> Iterator[None]:
    """Collect what the `gguf` package logs instead of printing it."""

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    logger, handler = logging.getLogger("gguf"), Collect(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _general(source: Folder, writer: gguf.GGUFWriter, wanted: str, warnings: list[str]) -> None:
    """Name, authors, licence and the like from the folder's card, as the `gguf` package reads it."""
    total, shared, expert, count = writer.get_total_parameter_count()
    try:
        metadata = gguf.Metadata.load(None, source.path, None, total)
    except Exception as error:  # noqa: BLE001 - a card is free text with YAML in front; the model does not need it
        warnings.append(f"the model card is left out: {' '.join(str(error).split())[:200]}")
        metadata = gguf.Metadata()
    metadata.name = metadata.name or source.path.resolve().name
    metadata.size_label = metadata.size_label or gguf.size_label(total, shared, expert, count)
    writer.add_type(gguf.GGUFType.MODEL)
    metadata.set_gguf_meta_model(writer)
    writer.add_file_type(getattr(gguf.LlamaFileType, _FILE_TYPES[wanted]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write(
    folder: Path, path: Path, writer: gguf.GGUFWriter, planned: list[weights.Planned], force: bool, report: Report
) -> int:
    n_bytes = sum(tensor.n_bytes + -tensor.n_bytes % writer.data_alignment for tensor in planned)
    progress = Progress(report, f"writing {path.name}", n_bytes)
    with Outputs([path], n_bytes + (64 << 20), force=force) as outputs:
        try:
            writer.write_header_to_file(outputs.temporary())
            with _one_sentence(folder):  # numbers that their keys' types cannot hold
                writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        with outputs.temporary().open("ab") as file:
            file.write(bytes(-file.tell() % writer.data_alignment))
            for tensor in planned:
                for chunk in tensor.chunks():
                    file.write(chunk)
                    progress.add(len(chunk))
                file.write(bytes(-tensor.n_bytes % writer.data_alignment))
            size = file.tell()
    return size
