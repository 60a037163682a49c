"""The binding over ctypes is cffi's in everything that `_native.py` sees: same layouts, same functions, same tests."""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
table = pytest.importorskip("edgellm._edgellm_table")
cffi = pytest.importorskip("edgellm._edgellm_ffi").ffi
own = pytest.importorskip("edgellm._ctypes_ffi").ffi


def python(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
    )


def kind(ctype: object) -> str:
    """A cffi type as the table writes it."""
    if ctype.kind == "enum":  # type: ignore[attr-defined]
        return "int"
    return "*" if ctype.kind == "pointer" else ctype.cname  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(table.STRUCTS))
def test_structs_are_laid_out_as_cffi_does(name: str) -> None:
    fields = cffi.typeof(name).fields
    made = own.new(f"{name} *")
    assert own.sizeof(name) == cffi.sizeof(name)
    assert [(key, field.offset) for key, field in fields] == [
        (key, getattr(type(made), key).offset) for key, _ in made._fields_
    ]
    for (_, field), (_, ours, count) in zip(fields, table.STRUCTS[name], strict=True):
        assert (kind(field.type.item), field.type.length) == (ours, count) if count else kind(field.type) == ours


def test_functions_and_constants_are_those_of_cffi() -> None:
    from edgellm._native import library_path

    lib = cffi.dlopen(str(library_path()))
    theirs = {name for name in dir(lib) if not name.startswith("EDGELLM_")}
    assert theirs == set(table.FUNCTIONS)
    for name in theirs:
        signature = cffi.typeof(getattr(lib, name))
        assert kind(signature.result) == table.FUNCTIONS[name][0], name
        assert [kind(argument) for argument in signature.args] == table.FUNCTIONS[name][1], name
    constants = {name: getattr(lib, name) for name in dir(lib) if name.startswith("EDGELLM_")}
    assert constants == table.ENUMS


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("top_k", 1 << 31, OverflowError),
        ("seed", -1, OverflowError),
        ("top_k", 1.5, TypeError),
        ("top_k", "1", TypeError),
        ("no_such_member", 1, AttributeError),
    ],
)
def test_numbers_that_do_not_fit_are_refused_as_by_cffi(name: str, value: object, error: type[Exception]) -> None:
    for ffi in (cffi, own):
        with pytest.raises(error):
            setattr(ffi.new("edgellm_sampling *"), name, value)


def test_arguments_that_do_not_fit_are_refused() -> None:
    from edgellm._native import library_path

    for ffi in (cffi, own):
        lib = ffi.dlopen(str(library_path()))
        with pytest.raises(OverflowError):
            lib.edgellm_vocab_is_eog(ffi.NULL, 1 << 40)
        with pytest.raises(TypeError):
            lib.edgellm_vocab_is_eog(ffi.NULL, 1.5)


def test_memory_is_shared_or_copied_as_with_cffi() -> None:
    numbers = array("i", [1, 2, 3])
    for ffi in (cffi, own):
        view = ffi.from_buffer("int32_t[]", numbers)
        view[1] += 7
        assert len(view) == 3
        assert bytes(ffi.buffer(ffi.new("char[]", 4), 4)) == bytes(4)
        assert len(ffi.from_buffer("char[]", b"")) == 0
        assert ffi.string(ffi.new("char[]", 4)) == b""
    assert numbers[1] == 16


# 12 s: what a platform without cffi gets is the whole of it.
def test_the_tests_of_the_binding_pass_over_ctypes() -> None:
    files = [f"tests/unit/test_{name}.py" for name in ("native", "llm", "threads")]
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, EDGELLM_FFI="ctypes")
    assert done.returncode == 0, done.stdout[-3000:]


def test_without_cffi_it_works_all_the_same() -> None:
    code = (
        "import sys; sys.modules['_cffi_backend'] = None\n"
        "import importlib.util; real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == '_cffi_backend' else real(name, *a)\n"
        "from edgellm import _native; ffi, lib = _native.load()\n"
        "print(type(ffi).__module__, ffi.string(lib.edgellm_version()).decode())"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("edgellm._ctypes_ffi ")


def test_an_unknown_binding_is_named() -> None:
    done = python("-c", "from edgellm import _native; _native.load()", EDGELLM_FFI="swig")
    assert "EDGELLM_FFI is 'swig'; it must be cffi or ctypes" in done.stderr
