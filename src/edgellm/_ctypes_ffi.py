"""
What `_native.py` uses of cffi, over ctypes: for platforms without a wheel of cffi, and for EDGELLM_FFI=ctypes.

Built from the same declarations (``_edgellm_table.py``, which cmake/make_ffi.py writes beside cffi's module). Pointers
that come from C are plain addresses, None for NULL; what `new` makes are ctypes arrays and structs. Numbers are checked
against their type as cffi does, since ctypes would cut them silently. As with cffi, a struct does not keep alive what
its pointers point to.
"""

from __future__ import annotations

import ctypes
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from edgellm import _edgellm_table

ENUMS: dict[str, int] = _edgellm_table.ENUMS
STRUCTS: dict[str, Any] = _edgellm_table.STRUCTS
FUNCTIONS: dict[str, Any] = _edgellm_table.FUNCTIONS
_INTEGERS = {
    "int": ctypes.c_int, "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64, "size_t": ctypes.c_size_t,
}  # fmt: skip
_TYPES: dict[str, Any] = {
    **_INTEGERS, "char": ctypes.c_char, "float": ctypes.c_float, "double": ctypes.c_double, "*": ctypes.c_void_p,
}  # fmt: skip


def _range(name: str) -> tuple[int, int]:
    bits = 8 * ctypes.sizeof(_INTEGERS[name])
    return (0, (1 << bits) - 1) if name in ("uint32_t", "uint64_t", "size_t") else (-1 << bits - 1, (1 << bits - 1) - 1)


_RANGES = {name: _range(name) for name in _INTEGERS}


def _plain(kind: str, value: Any) -> Any:
    """*value* as ctypes takes it for the C type *kind*; OverflowError and TypeError as cffi raises them."""
    if kind in _RANGES:
        low, high = _RANGES[kind]
        number = operator.index(value)
        if not low <= number <= high:
            raise OverflowError(f"integer {number} does not fit '{kind}'")
        return number
    if kind == "*":
        if value is None or isinstance(value, int):
            return value
        return value.address if isinstance(value, Owned) else ctypes.addressof(value)
    return value


class _Struct(ctypes.Structure):
    _kinds: dict[str, str]

    @property
    def _as_parameter_(self) -> Any:
        return ctypes.byref(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._kinds:
            raise AttributeError(f"{type(self).__name__} has no member {name}")
        super().__setattr__(name, _plain(self._kinds[name], value))


def _make_structs() -> None:
    for name, members in STRUCTS.items():
        fields = [(member, _TYPES[kind] * count if count else _TYPES[kind]) for member, kind, count in members]
        kinds = {member: kind for member, kind, _ in members}
        _TYPES[name] = type(name, (_Struct,), {"_fields_": fields, "_kinds": kinds})


_make_structs()


class Owned:
    """The address of a native object, and what frees it when nobody holds this any more."""

    def __init__(self, address: int | None, free: Callable[[Any], None]) -> None:
        self.address = self._as_parameter_ = address
        self._free = free

    def __del__(self) -> None:
        self._free(self.address)


class Library:
    """The functions of a shared library, each prepared on its first use, and the constants."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)

    def __getattr__(self, name: str) -> Any:
        if name in ENUMS:
            return ENUMS[name]
        if name not in FUNCTIONS:
            raise AttributeError(name)
        result, arguments = FUNCTIONS[name]
        function = getattr(self._library, name)
        function.restype = None if result == "void" else _TYPES[result]
        function.argtypes = [_TYPES[kind] for kind in arguments]
        if any(kind in _INTEGERS for kind in arguments):
            function = _checked(function, arguments)
        setattr(self, name, function)
        return function


def _checked(function: Any, kinds: list[str]) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        if len(values) != len(kinds):
            raise TypeError(f"{function.__name__} takes {len(kinds)} arguments, not {len(values)}")
        return function(
            *(_plain(kind, value) if kind in _INTEGERS else value for kind, value in zip(kinds, values, strict=True))
        )

    return call


class FFI:
    """The operations of cffi's FFI that `_native.py` needs; types are written as there."""

    NULL = None

    def dlopen(self, path: str) -> Library:
        """The library at *path*; OSError when it cannot be loaded. It stays loaded."""
        return Library(path)

    def sizeof(self, name: str) -> int:
        """Bytes of a type."""
        return ctypes.sizeof(_TYPES[name])

    def cast(self, kind: str, value: int) -> int:
        """An address; *kind* is a pointer."""
        assert kind.endswith("*"), kind
        return value

    def new(self, declaration: str, init: Any = None) -> Any:
        """
        Zeroed memory: ``"T *"`` one T (a struct, or an array of one), ``"T[]"`` as many as *init* says.

        Args:
            declaration: As for cffi.
            init: A number of elements, or their values; for a struct its members in a dict.
        """
        match = re.fullmatch(r"(.*?)\s*(\*|\[\])", declaration)
        assert match, declaration
        item = "*" if "*" in match[1] else match[1].removeprefix("const ")
        if match[2] == "[]":
            return self._array(item, init)
        if item not in STRUCTS:
            return (_TYPES[item] * 1)()
        made = _TYPES[item]()
        for name, value in (init or {}).items():
            setattr(made, name, value)
        return made

    def _array(self, item: str, init: int | Sequence[Any]) -> Any:
        kind = _TYPES[item]
        if isinstance(init, int):
            return (kind * init)()
        made = (kind * len(init))()
        for place, value in enumerate(init):
            if item in STRUCTS:
                for (name, _, _), part in zip(STRUCTS[item], value, strict=True):
                    setattr(made[place], name, part)
            else:
                made[place] = _plain(item, value)
        return made

    def from_buffer(self, declaration: str, data: Any) -> Any:
        """The items in *data* as an array: the memory of an `array.array` itself, of bytes a copy."""
        kind = _TYPES[declaration.removesuffix("[]")]
        size = memoryview(data).nbytes // ctypes.sizeof(kind)
        made = kind * size
        return made.from_buffer_copy(data) if isinstance(data, bytes) else made.from_buffer(data)

    def buffer(self, data: Any, size: int) -> memoryview:
        """*size* bytes at an address, or of an array; not kept alive."""
        address = data if isinstance(data, int) else ctypes.addressof(data) if data is not None else 0
        view: memoryview = _view(address, size, 0x200)  # PyBUF_WRITE
        return view

    def unpack(self, data: Any, n: int) -> list[int]:
        """The first *n* items of an array."""
        return list(data[:n])

    def string(self, data: Any) -> bytes:
        """The bytes up to the NUL, at an address, in an array or in a struct's array (which ctypes has read)."""
        if isinstance(data, bytes):
            return data
        if data is None:
            raise RuntimeError("cannot read a string at NULL")
        return ctypes.string_at(data) if isinstance(data, int) else bytes(data.value)

    def gc(self, address: int | None, free: Callable[[Any], None]) -> Owned:
        """*address* with *free*, called with it once nobody holds what this returns."""
        return Owned(address, free)


_view = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)
ffi = FFI()
