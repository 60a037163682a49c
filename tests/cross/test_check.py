"""
Every check of cross/check.py can fail: a small sound wheel, broken in one way each.

The library is three functions compiled by this machine's compiler; where another machine's is wanted, its number in the
header is changed.
"""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import binaries
import check
import repack
from common import Stop, targets

TAG = "manylinux_2_28_x86_64"
TARGET = {
    "name": "test", "tag": TAG, "system": "Linux", "format": "elf", "machine": "x86_64", "glibc": "2.28",
    "needed": ["libc.so.6"], "min_align": 16384, "max_mb": 1,
}  # fmt: skip
SOUND = ["-s", "-Wl,-z,nodelete", "-Wl,-z,max-page-size=65536", "-Wl,-z,noexecstack"]
CODE = "int edgellm_version(void) { return 1; }\n"
LIB = "edgellm/lib/libedgellm.so"


@pytest.fixture(scope="module")
def compile_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """``compile_library(code, *flags)``: the bytes of a shared library for this machine."""
    cc = shutil.which("cc")
    if not cc:
        pytest.skip("cc is not installed")
    folder = tmp_path_factory.mktemp("libraries")
    made: dict[Any, bytes] = {}

    def make(code: str = CODE, *flags: str) -> bytes:
        if (code, flags) not in made:
            (folder / "a.c").write_text(code)
            command = [cc, "-shared", "-fPIC", "-O1", "-nostdlib", "-o", "a.so", "a.c", *(flags or SOUND)]
            subprocess.run(command, check=True, cwd=folder)
            made[code, flags] = (folder / "a.so").read_bytes()
        return made[code, flags]

    return make


def write_wheel(folder: Path, files: dict[str, bytes], tag: str = TAG, name_tag: str = "", record: bool = True) -> Path:
    info = "edgellm-1.0.dist-info"
    files = {**{name: name.encode() for name in check.GENERATED}, **files}
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n".encode()
    if record:
        files[f"{info}/RECORD"] = repack.record(files, f"{info}/RECORD")
    path = folder / f"edgellm-1.0-py3-none-{name_tag or tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def sound(compile_library: Callable[..., bytes]) -> dict[str, bytes]:
    return {
        LIB: compile_library(),
        "edgellm/lib/edgellm_ggml_x64.so": compile_library("int edgellm_ggml_cpu(void) { return 2; }\n"),
        "edgellm/lib/edgellm_ggml_avx2.so": compile_library("int edgellm_ggml_cpu(void) { return 3; }\n"),
        "edgellm/__init__.py": b"# text\n" * 800,
    }


def findings(path: Path, target: dict[str, Any] = TARGET) -> dict[str, list[str]]:
    return {name: texts for name, texts in check.check(path, target).items() if texts}


def test_sound_wheel_has_no_findings(sound: dict[str, bytes], tmp_path: Path) -> None:
    assert findings(write_wheel(tmp_path, sound)) == {}


def machine_number(data: bytes, number: int) -> bytes:
    return data[:18] + struct.pack("<H", number) + data[20:]


BROKEN: dict[str, tuple[str, str, tuple[str, ...] | int]] = {
    # check: its sentence, the library's code, its flags or machine number
    "machine": ("the tag says elf x86_64", CODE, 183),
    "needed": ("looks for libraries in /opt", CODE, (*SOUND, "-Wl,-rpath,/opt/x")),
    "alignment": ("aligned to 4096", CODE, ("-s", "-Wl,-z,nodelete", "-Wl,-z,max-page-size=4096")),
    "exports": ("exports other", CODE + "int other(void) { return 2; }\n", tuple(SOUND)),
    "nodelete": ("not linked with -z nodelete", CODE, ("-s", "-Wl,-z,max-page-size=65536")),
    "paths": ("/root/src/a.c", CODE + 'const char *edgellm_s(void) { return "/root/src/a.c"; }\n', tuple(SOUND)),
    "stripped": ("symbol table", CODE, tuple(SOUND[1:])),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_library(
    name: str, sound: dict[str, bytes], compile_library: Callable[..., bytes], tmp_path: Path
) -> None:
    sentence, code, change = BROKEN[name]
    number = change if isinstance(change, int) else 0
    sound[LIB] = compile_library(code, *(() if isinstance(change, int) else change))
    sound[LIB] = machine_number(sound[LIB], number) if number else sound[LIB]
    found = findings(write_wheel(tmp_path, sound))
    assert list(found) == [name]
    assert sentence in found[name][0]


def test_debugging_information(sound: dict[str, bytes], compile_library: Callable[..., bytes], tmp_path: Path) -> None:
    sound[LIB] = compile_library(CODE, *SOUND[1:], "-g", "-fdebug-prefix-map=/=_")
    assert any("debugging" in text for text in findings(write_wheel(tmp_path, sound))["stripped"])


def test_newer_glibc_and_unknown_library(sound: dict[str, bytes], tmp_path: Path) -> None:
    if not shutil.which("cc"):
        pytest.skip("cc is not installed")
    (tmp_path / "b.c").write_text(CODE + "#include <math.h>\ndouble edgellm_x(double a) { return pow(a, 3); }\n")
    command = ["cc", "-shared", "-fPIC", "-o", "b.so", "b.c", *SOUND, "-lm", "-Wl,--version-script=b.map"]
    (tmp_path / "b.map").write_text("{ global: edgellm_*; local: *; };\n")
    subprocess.run(command, check=True, cwd=tmp_path)
    sound[LIB] = (tmp_path / "b.so").read_bytes()
    path = write_wheel(tmp_path, sound)
    assert "needs libm.so.6" in findings(path)["needed"][0]
    old = {**TARGET, "glibc": "2.1", "needed": ["libm.so.6", "libc.so.6"]}
    assert "the tag allows 2.1" in findings(path, old)["glibc"][0]
    assert "this is musl" in findings(path, {key: value for key, value in old.items() if key != "glibc"})["glibc"][0]


def test_tags(sound: dict[str, bytes], tmp_path: Path) -> None:
    other = write_wheel(tmp_path, sound, tag="manylinux_2_28_aarch64", name_tag=TAG)
    assert "its WHEEL says py3-none-manylinux_2_28_aarch64" in findings(other)["tags"][0]
    named = write_wheel(tmp_path, sound, name_tag="manylinux_2_28_aarch64")
    assert "the file is named" in findings(named)["tags"][0]


def test_record(sound: dict[str, bytes], tmp_path: Path) -> None:
    path = write_wheel(tmp_path, sound, record=False)
    assert "RECORD has no edgellm/__init__.py" in findings(path)["record"]
    data = repack.record({**sound, "gone.py": b""}, "edgellm-1.0.dist-info/RECORD")
    path = write_wheel(tmp_path, {**sound, "edgellm-1.0.dist-info/RECORD": data}, record=False)
    assert "RECORD names gone.py, which is not there" in findings(path)["record"]


def test_files_that_do_not_belong(sound: dict[str, bytes], tmp_path: Path) -> None:
    extra = {**sound, "edgellm/lib/libother.so.1": sound[LIB], "edgellm/lib/bad.so": b"text"}
    found = findings(write_wheel(tmp_path, extra))
    assert "edgellm/lib/libother.so.1 is a binary that does not belong there" in found["contents"]
    assert "edgellm/lib/bad.so: neither ELF, Mach-O nor PE" in found["contents"]
    assert "are the same file" in found["duplicates"][0]
    del sound[LIB]
    assert f"{LIB} is missing" in findings(write_wheel(tmp_path, sound))["contents"]


@pytest.mark.parametrize("name", check.GENERATED)
def test_binding_is_incomplete(name: str, sound: dict[str, bytes], tmp_path: Path) -> None:
    path = write_wheel(tmp_path, sound)
    with zipfile.ZipFile(path) as archive:
        files = {member: archive.read(member) for member in archive.namelist() if member != name}
    assert check.check(rewritten(path, files), TARGET)["contents"] == [f"{name} is missing"]


def rewritten(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    return path


def test_every_check_has_a_wheel_that_fails_it() -> None:
    """By name: a new check wants a broken wheel of its own."""
    elsewhere = {
        "tags": test_tags, "record": test_record, "duplicates": test_files_that_do_not_belong,
        "contents": test_binding_is_incomplete, "glibc": test_newer_glibc_and_unknown_library,
        "instructions": test_instructions, "size": test_size,
    }  # fmt: skip
    assert {one.__name__ for one in check.CHECKS} == set(BROKEN) | set(elsewhere)


def test_size(sound: dict[str, bytes], tmp_path: Path) -> None:
    assert "more than 0.001" in findings(write_wheel(tmp_path, sound), {**TARGET, "max_mb": 0.001})["size"][0]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (0x4E829420, "sdot"), (0x4F82E020, "sdot"), (0x4E82A420, "smmla"), (0xB8E00041, "lse"), (0x88E07C41, "lse"),
        (0xA540A000, "sve"), (0x2598E3E0, "sve"), (0x1EE22820, "fp16"), (0x4E421420, "fp16"), (0x6E42EC20, "bf16"),
    ],
)  # fmt: skip
def test_instructions(word: int, kind: str, compile_library: Callable[..., bytes], tmp_path: Path) -> None:
    """Words as GNU as makes them of sdot, smmla, ldadd, cas, ld1w, ptrue, fadd h and fadd 8h, bfmmla."""
    code = CODE + f'__asm__(".text\\n.balign 4\\n.long {word:#x}\\n");\n'
    library = machine_number(compile_library(code, *SOUND), 183)
    found = check.count_instructions(binaries.read(library))
    assert found[kind] >= 1
    path = write_wheel(tmp_path, {LIB: library}, tag="linux_aarch64")
    target = {**TARGET, "machine": "aarch64", "tag": "linux_aarch64"}
    assert findings(path, {**target, "must": [kind]}) == {}
    assert "instructions, which the oldest" in findings(path, {**target, "never": [kind]})["instructions"][0]
    plain = machine_number(compile_library(), 183)
    path = write_wheel(tmp_path, {LIB: plain}, tag="linux_aarch64")
    assert "a fast kernel is missing" in findings(path, {**target, "must": [kind]})["instructions"][0]


def wheel_with(target: str, **changes: Any) -> check.Wheel:
    """A wheel whose one library is sound for *target* but for *changes*."""
    table = targets()[target]
    name = f"edgellm/lib/{check.NAMES[table['format']]}"
    library = binaries.Library(
        table["format"], table["machine"], exports=["edgellm_version"], nodelete=True, align=65536, hard_float=True,
        neon=table.get("neon"), platform="macos", min_os=table.get("min_os"), signed=True,
    )  # fmt: skip
    return check.Wheel(Path("x.whl"), table, {}, [], {name: dataclasses.replace(library, **changes)})


@pytest.mark.parametrize(
    ("target", "changes", "one", "sentence"),
    [
        ("rpi-armv7", {"hard_float": False}, check.machine, "hard float is False, not True"),
        ("rpi-armv7", {"neon": False}, check.machine, "neon is False, not True"),
        ("rpi-armv6", {"neon": True}, check.machine, "neon is True, not False"),
        ("macos-arm64", {"min_os": "14.0"}, check.machine, "is for macos 14.0, not macos 11.0"),
        ("macos-arm64", {"platform": "ios"}, check.machine, "is for ios 11.0"),
        ("macos-arm64", {"signed": False}, check.stripped, "is not signed"),
        ("macos-arm64", {"needed": ["@rpath/x.dylib"]}, check.needed, "needs @rpath/x.dylib"),
        ("windows-x64", {"needed": ["libc++.dll"]}, check.needed, "needs libc++.dll"),
        ("rpi-aarch64", {"soname": "libedgellm.so.1"}, check.needed, "wheels hold no symbolic links"),
        ("rpi-aarch64", {"exec_stack": True}, check.nodelete, "wants an executable stack"),
        ("rpi-aarch64", {"exports": []}, check.exports, "exports nothing"),
    ],
)
def test_other_systems(target: str, changes: dict[str, Any], one: Callable[..., Any], sentence: str) -> None:
    assert not list(one(wheel_with(target)))
    assert sentence in next(one(wheel_with(target, **changes)))


def test_arm_attributes() -> None:
    """The aeabi section of a NEON build and of one without, written out."""
    attributes = bytes([6, 10, 10, 5, 12, 1, 28, 1])
    head = b"A" + struct.pack("<I", 23) + b"aeabi\0" + b"\x01" + struct.pack("<I", 13)
    assert binaries._arm_neon(head + attributes)
    assert not binaries._arm_neon(head + bytes([6, 6, 10, 2, 28, 1]))
    assert binaries._arm_neon(head + b"\x05cortex-a7\0" + attributes)


@pytest.mark.parametrize("end", [4, 40, 100, 700])
def test_damaged_library_is_a_finding(end: int, sound: dict[str, bytes], tmp_path: Path) -> None:
    sound[LIB] = sound[LIB][:end]
    assert findings(write_wheel(tmp_path, sound))["contents"]


def test_no_wheel(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_text("text")
    with pytest.raises(Stop, match="is no wheel"):
        check.open_wheel(tmp_path / "x.whl", TARGET)
