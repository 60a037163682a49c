"""
The file types that `edgellm quantize` makes: each with its number in ``general.file_type`` and most weights' type.

Source: `LlamaFileType` of the gguf package for the numbers; the names are those of llama.cpp's llama-quantize. MXFP4
and NVFP4 are ours: that tool has MXFP4 for experts alone, and no NVFP4.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import InvalidArgument
from edgellm.tools.ggml_types import TENSOR_TYPES, TensorType

TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}
NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}
FLOATS = ("F32", "F16", "BF16")
WEIGHTS = tuple(name for name in TYPES if name not in ("Q8_1", "Q8_K", "F64", "I8", "I16", "I32", "I64"))


@dataclass(frozen=True)
class FileType:
    """A name, its number in the file, and the type that its mixture starts from."""

    name: str
    number: int
    base: str


FILE_TYPES = {
    name: FileType(name, number, base)
    for name, number, base in (
        ("F32", 0, "F32"), ("F16", 1, "F16"), ("BF16", 32, "BF16"),
        ("Q4_0", 2, "Q4_0"), ("Q4_1", 3, "Q4_1"), ("Q5_0", 8, "Q5_0"), ("Q5_1", 9, "Q5_1"), ("Q8_0", 7, "Q8_0"),
        ("Q2_K_S", 21, "Q2_K"), ("Q2_K", 10, "Q2_K"), ("Q3_K_S", 11, "Q3_K"), ("Q3_K_M", 12, "Q3_K"),
        ("Q3_K_L", 13, "Q3_K"), ("Q4_K_S", 14, "Q4_K"), ("Q4_K_M", 15, "Q4_K"), ("Q5_K_S", 16, "Q5_K"),
        ("Q5_K_M", 17, "Q5_K"), ("Q6_K", 18, "Q6_K"),
        ("IQ1_S", 24, "IQ1_S"), ("IQ1_M", 31, "IQ1_M"), ("IQ2_XXS", 19, "IQ2_XXS"), ("IQ2_XS", 20, "IQ2_XS"),
        ("IQ2_S", 28, "IQ2_XS"), ("IQ2_M", 29, "IQ2_S"), ("IQ3_XXS", 23, "IQ3_XXS"), ("IQ3_XS", 22, "IQ3_S"),
        ("IQ3_S", 26, "IQ3_S"), ("IQ3_M", 27, "IQ3_S"), ("IQ4_NL", 25, "IQ4_NL"), ("IQ4_XS", 30, "IQ4_XS"),
        ("TQ1_0", 36, "TQ1_0"), ("TQ2_0", 37, "TQ2_0"),
        ("MXFP4_MOE", 38, "MXFP4"), ("MXFP4", 38, "MXFP4"), ("NVFP4", 39, "NVFP4"),
    )
}  # fmt: skip
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def file_type(name: str) -> FileType:
    """
    The file type of that name, in either case.

    Raises:
        InvalidArgument: There is none.
    """
    upper = name.upper()
    found = FILE_TYPES.get(ALIASES.get(upper, upper))
    if found is None:
        raise InvalidArgument(f"'{name}' is no file type: use one of {', '.join(FILE_TYPES)}")
    return found


def tensor_type(name: str) -> TensorType:
    """
    The type of weights of that name, in either case.

    Raises:
        InvalidArgument: There is none.
    """
    if name.upper() not in WEIGHTS:
        raise InvalidArgument(f"'{name}' is no type of weights: use one of {', '.join(WEIGHTS)}")
    return TYPES[name.upper()]


def row_bytes(kind: TensorType, n_per_row: int) -> int:
    """Bytes of a row, which is whole blocks."""
    return n_per_row // kind.elements * kind.n_bytes
