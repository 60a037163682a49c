"""
GGUF tensors as NumPy arrays: quantize, dequantize, multiply.

    from edgellm import tensors

    w = tensors.quantize(weights, "Q4_K")           # float32 [rows, k] -> uint8 [rows, bytes of a row]
    y = tensors.matmul(w, x, "Q4_K")                # float32 [n, k] -> float32 [n, rows]
    tensors.matmul(w, x, "Q4_K", kernel="ref")      # the plain C that every other kernel equals, bit by bit

What runs is the library that runs models: its kernels for products, ggml's formats for the rest. Arrays are laid out
as in the `gguf` package: a row lies along the last axis, and a quantized row is bytes. Types are named as in GGUF, in
either case, or given by number. Calls use one core and release Python's lock: threads may share the work by rows.

Importing this needs a module compiled for one Python, which wheels made for all of them leave out; `edgellm` itself
never imports it. Wrong arguments raise `edgellm.InvalidArgument`, which is a `ValueError`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgellm import _native
from edgellm.errors import EdgellmError, InvalidArgument

try:
    import edgellm.tensors._tensors as _tensors
except ImportError as error:
    raise ImportError(
        f"edgellm.tensors is not part of this installation ({error}); with a C++ compiler and Python's headers run: "
        "pip install --force-reinstall --no-binary edgellm edgellm"
    ) from None
try:
    _native.load()  # the same library, checked against this package
    _tensors.load(str(_native.library_path()))
except EdgellmError as error:
    raise ImportError(str(error)) from None

__all__ = [
    "TensorType",
    "default_kernel",
    "dequantize",
    "dot",
    "kernels",
    "matmul",
    "quantize",
    "quantize_activations",
    "types",
]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class TensorType(NamedTuple):
    """
    What a type of weights is.

    Attributes:
        name: As in GGUF, "Q4_K".
        number: Its number in GGUF files.
        elements: Values in one block; rows are whole blocks.
        bytes: Bytes of one block.
        own_kernel: Whether `matmul` and `dot` take it.
        quantizes: Whether `quantize` makes it.
        needs_imatrix: Whether it does so only with an importance matrix.
    """

    name: str
    number: int
    elements: int
    bytes: int
    own_kernel: bool
    quantizes: bool
    needs_imatrix: bool


_TYPES = {row[0]: TensorType(*row) for row in _tensors.types()}
_BY_NUMBER = {t.number: t for t in _TYPES.values()}


def types() -> dict[str, TensorType]:
    """All types that `dequantize` reads, by name."""
    return dict(_TYPES)


def kernels() -> list[str]:
    """
    The kernels this processor can run, best first; "ref" is always the last.

    ``EDGELLM_CPU_DISABLE`` does not shorten the list, it changes `default_kernel`.
    """
    return _tensors.kernel_names()


def default_kernel() -> str:
    """The kernel that models use, and that ``kernel=None`` means: the best that ``EDGELLM_CPU_DISABLE`` leaves."""
    return _tensors.default_kernel()


def quantize(array: Any, type: str | int, imatrix: Any = None) -> Bytes:
    """
    Quantize floats along the last axis, with ggml's code for the format.

    Types with blocks take magnitudes up to 127 * 65504, or what their scales reach, and those below 1e-15 as 0.

    Args:
        array: float32 (or float16) of shape [..., k]; k is a multiple of the type's elements.
        type: The type to make; ``types()[name].quantizes`` says whether it can be.
        imatrix: float32 [k], how much each column counts, 0 and up; None: all the same. Some types do not use it.

    Returns:
        uint8 of shape [..., bytes of a row].

    Raises:
        InvalidArgument: A value is not finite or too large for the type, or a shape or type does not fit.
    """
    x, kind = _floats(array, "array"), _type(type)
    if x.ndim == 0:
        raise InvalidArgument("array is a single number; quantize takes rows")
    weights = None if imatrix is None else _of_dimensions(_floats(imatrix, "imatrix"), 1, "imatrix")
    if weights is not None and not bool(np.all((weights >= 0) & np.isfinite(weights))):
        raise InvalidArgument("imatrix holds a value that is negative or not finite")
    rows = _tensors.quantize(x.reshape(-1, x.shape[-1]) if x.size else np.empty((0, x.shape[-1]), "f4"), kind, weights)
    return rows.reshape(*x.shape[:-1], rows.shape[1])


def dequantize(data: Any, type: str | int, shape: int | Sequence[int]) -> Floats:
    """
    Turn the bytes of a GGUF tensor into floats, with ggml's code for the format.

    Args:
        data: bytes, bytearray, memoryview, mmap, or a uint8 array of any shape: the tensor, row by row, at any address.
        type: Its type.
        shape: Of the result, the last axis along the rows; the order of `gguf`'s arrays, the reverse of GGUF's own.

    Returns:
        float32 of that shape.

    Raises:
        InvalidArgument: Bytes, type and shape do not belong together.
    """
    kind = _BY_NUMBER[_type(type)]
    wanted = _shape(shape)
    w = np.ascontiguousarray(_bytes(data, "data")).reshape(-1)
    n = 1
    for size in wanted:
        n *= size
    if not wanted or wanted[-1] % kind.elements:
        raise InvalidArgument(f"shape {wanted}: rows of {kind.name} are multiples of {kind.elements}")
    if w.size != n // kind.elements * kind.bytes:
        raise InvalidArgument(
            f"data has {w.size} bytes; shape {wanted} of {kind.name} takes {n // kind.elements * kind.bytes}"
        )
    if n == 0:
        return np.empty(wanted, np.float32)
    return _tensors.dequantize(w, kind.number, wanted[-1]).reshape(wanted)


def dot(w: Any, x: Any, type: str | int, kernel: str | None = None) -> float:
    """
    The product of one row of weights and one row of activations; `matmul` for one of each.

    Args:
        w: uint8 [bytes of a row], or bytes.
        x: float32 [k].
        type: Of w.
        kernel: As in `matmul`.

    Returns:
        A float32's value.

    Raises:
        InvalidArgument: As in `matmul`.
    """
    row, values = _of_dimensions(_bytes(w, "w"), 1, "w"), _of_dimensions(_floats(x, "x"), 1, "x")
    return float(matmul(row[None], values[None], type, kernel)[0, 0])


def matmul(w: Any, x: Any, type: str | int, kernel: str | None = None) -> Floats:
    """
    Multiply rows of weights with rows of activations, as models do it.

    The kernel quantizes x first (to 8 bits for quantized weights; float weights take it as it is) and keeps one order
    of summation, given by the type and the position along k: each result has the same bits whatever the kernel, and
    whatever else is in the call. The rule is written down in ``csrc/kernels/kernels.h``.

    Args:
        w: uint8 [n_rows, bytes of a row], rows of a GGUF tensor, at any address and any distance.
        x: float32 [n, k].
        type: Of w; ``types()[name].own_kernel`` says whether there is a kernel.
        kernel: One of `kernels()`; None: `default_kernel()`.

    Returns:
        float32 [n, n_rows].

    Raises:
        InvalidArgument: Sizes do not fit, or this processor has no such kernel.
    """
    rows, values = _of_dimensions(_bytes(w, "w"), 2, "w"), _of_dimensions(_floats(x, "x"), 2, "x")
    if rows.strides[1] != 1 or rows.strides[0] < rows.shape[1]:
        rows = np.ascontiguousarray(rows)
    return _tensors.matmul(rows, values, _type(type), _kernel(kernel))


def quantize_activations(x: Any, type: str | int, kernel: str | None = None) -> Bytes:
    """
    Activations as `matmul` quantizes them for weights of a type: to compare kernels with; the layout may change.

    Args:
        x: float32 [n, k].
        type: Of the weights.
        kernel: As in `matmul`.

    Returns:
        uint8 [n, bytes of a row].

    Raises:
        InvalidArgument: As in `matmul`.
    """
    return _tensors.quantize_activations(_of_dimensions(_floats(x, "x"), 2, "x"), _type(type), _kernel(kernel))


# ---- arguments -------------------------------------------------------------------------------------------------------


def _type(type: str | int) -> int:
    found = None
    if isinstance(type, str):
        found = _TYPES.get(type.upper())
    elif isinstance(type, (int, np.integer)):
        found = _BY_NUMBER.get(int(type))
    if found is None:
        raise InvalidArgument(f"type is {type!r}; it is one of {', '.join(_TYPES)}, or its number in GGUF")
    return found.number


def _kernel(kernel: str | None) -> str:
    if kernel is None:
        return ""
    if kernel not in kernels():
        raise InvalidArgument(f"kernel is {kernel!r}; this processor runs {', '.join(kernels())}")
    return kernel


def _floats(array: Any, name: str) -> Floats:
    """As contiguous float32. Other numbers are refused rather than rounded in silence."""
    try:
        found = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name} is no array: {error}") from None
    if found.dtype.kind != "f" or found.dtype.itemsize > 4:
        raise InvalidArgument(f"{name} holds {found.dtype}; pass float32: {name}.astype('float32')")
    return np.require(found, np.float32, ("C", "A"))


def _bytes(data: Any, name: str) -> Bytes:
    try:
        found = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name} is neither bytes nor a uint8 array: {error}") from None
    if found.dtype != np.uint8:
        raise InvalidArgument(
            f"{name} holds {found.dtype}; the bytes of a tensor are uint8, as in {name}.view('uint8')"
        )
    return found


def _of_dimensions(array: NDArray[Any], n: int, name: str) -> NDArray[Any]:
    if array.ndim != n:
        raise InvalidArgument(f"{name} has {array.ndim} dimensions, not {n}: its shape is {array.shape}")
    return array


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    try:
        sizes = (operator.index(shape),) if not isinstance(shape, Sequence) else tuple(map(operator.index, shape))
    except TypeError:
        sizes = (-1,)
    if any(not 0 <= size < 1 << 48 for size in sizes) or len(sizes) > 32:
        raise InvalidArgument(f"shape is {shape!r}; it is up to 32 sizes of 0 or more")
    return sizes
