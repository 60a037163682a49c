"""
Look at a wheel as a file: is everything in it what its target promises?

    python cross/check.py TARGET WHEEL...

Each function below is one check: it takes the wheel and gives sentences about what is wrong. tests/cross breaks a wheel
in each of these ways and wants to see the sentence. What they catch has been shipped by others: another machine's file
under a tag, 4 KiB segments that 16 KiB kernels refuse, instructions that the oldest processor of the tag lacks.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from binaries import Broken, Library, read
from common import ROOT, Stop, cache, target_named

# A64 words by (mask, value), from the Arm Architecture Reference Manual's index of encodings.
INSTRUCTIONS: dict[str, list[tuple[int, int]]] = {
    "sdot": [(0xBFE0FC00, 0x0E809400), (0xBFC0F400, 0x0F80E000)],
    "smmla": [(0xFFE0FC00, 0x4E80A400)],
    "lse": [(0x3F200C00, 0x38200000), (0x3FA07C00, 0x08A07C00)],
    # z registers filled, stored, compared, computed with. Not the 04...... words: libunwind has CNTD for SVE's frames
    "sve": [(0xFE000000, 0xA4000000), (0xFE000000, 0x84000000), (0xFE000000, 0xE4000000), (0xFF000000, 0x25000000),
            (0xFF000000, 0x65000000)],
    "fp16": [(0xFFE00C00, 0x1EE00800), (0x9F60C400, 0x0E400400)],  # arithmetic; conversions are part of armv8-a
    "bf16": [(0xFFE0FC00, 0x6E40EC00), (0xBFE0FC00, 0x2E40FC00)],
}  # fmt: skip
# C++'s operators new and delete may be replaced by a program, so libc++ shows them; zig's Mach-O linker takes no list
# of exported symbols that would hide them, nor its own two. Elsewhere the version script does.
OPERATORS = re.compile(r"edgellm_|_Z(n[aw]|d[al])|__dso_handle$|_mh_dylib_header$")
LIBRARY = re.compile(r"\.(so(\.\d+)*|dylib|dll|pyd)$")
NAMES = {"elf": "libedgellm.so", "macho": "libedgellm.dylib", "pe": "libedgellm.dll"}
GENERATED = ("edgellm/_edgellm_ffi.py", "edgellm/_edgellm_table.py")  # what cffi and ctypes read of the header
MODULES = {"x86_64": ["edgellm_ggml_x64", "edgellm_ggml_avx2"]}
FOREIGN_PATH = re.compile(rb"/(?:home|root|Users|work|builds?|tmp|opt)/[\w.+-]+/[\w.+/-]+")


@dataclass
class Wheel:
    """A wheel, opened once for all checks."""

    path: Path
    target: dict[str, Any]
    files: dict[str, bytes]
    twice: list[str]
    libraries: dict[str, Library] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def member(self, name: str) -> bytes:
        """The file of that name in the .dist-info folder."""
        return next((data for path, data in self.files.items() if path.endswith(f".dist-info/{name}")), b"")


def open_wheel(path: Path, target: dict[str, Any]) -> Wheel:
    """
    Read a wheel.

    Raises:
        Stop: It is no zip archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            files = {name: archive.read(name) for name in names if not name.endswith("/")}
    except (OSError, zipfile.BadZipFile) as error:
        raise Stop(f"{path} is no wheel: {error}") from None
    wheel = Wheel(path, target, files, sorted({name for name in names if names.count(name) > 1}))
    for name, data in files.items():
        if LIBRARY.search(name):
            try:
                wheel.libraries[name] = read(data)
            except Broken as error:
                wheel.broken[name] = str(error)
    return wheel


def tags(wheel: Wheel) -> Iterator[str]:
    """The tag in the file's name, in WHEEL, and the target's are the same."""
    wanted = f"py3-none-{wheel.target['tag']}"
    if not wheel.path.name.endswith(f"-{wanted}.whl"):
        yield f"the file is named {wheel.path.name}, not ...-{wanted}.whl"
    text = wheel.member("WHEEL").decode("utf-8", "replace")
    inside = re.findall(r"^Tag: (.*?)\s*$", text, re.M)
    if inside != [wanted]:
        yield f"its WHEEL says {', '.join(inside) or 'no tag'}, not {wanted}"
    if not re.search(r"^Root-Is-Purelib: false\s*$", text, re.M):
        yield "its WHEEL does not say Root-Is-Purelib: false"


def record(wheel: Wheel) -> Iterator[str]:
    """RECORD lists every file with its sum, and nothing else."""
    listed = {
        row[0]: row[1] for row in csv.reader(io.StringIO(wheel.member("RECORD").decode("utf-8", "replace"))) if row
    }
    for name, data in wheel.files.items():
        if name.endswith("/RECORD"):
            continue
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        if listed.get(name) != f"sha256={digest}":
            yield f"RECORD has {'another sum for' if name in listed else 'no'} {name}"
    for name in listed:
        if name not in wheel.files:
            yield f"RECORD names {name}, which is not there"


def duplicates(wheel: Wheel) -> Iterator[str]:
    """No file is there twice, under one name or two."""
    for name in wheel.twice:
        yield f"{name} is there twice"
    seen: dict[bytes, str] = {}
    for name, data in wheel.files.items():
        if len(data) > 4096:
            if data in seen:
                yield f"{name} and {seen[data]} are the same file"
            seen[data] = name


def contents(wheel: Wheel) -> Iterator[str]:
    """The library is there, on x86-64 the two modules, both bindings' tables, and no other binary."""
    suffix = NAMES[wheel.target["format"]].rpartition(".")[2]
    wanted = {f"edgellm/lib/{NAMES[wheel.target['format']]}"}
    wanted |= {f"edgellm/lib/{name}.{suffix}" for name in MODULES.get(wheel.target["machine"], [])}
    found = set(wheel.libraries) | set(wheel.broken)
    for name in [*sorted(wanted - found), *(name for name in GENERATED if name not in wheel.files)]:
        yield f"{name} is missing"
    for name in sorted(found - wanted):
        yield f"{name} is a binary that does not belong there"
    for name, why in wheel.broken.items():
        yield f"{name}: {why}"


def machine(wheel: Wheel) -> Iterator[str]:
    """Each binary is for the machine that the tag names."""
    for name, library in wheel.libraries.items():
        wanted, found = (wheel.target["format"], wheel.target["machine"]), (library.format, library.machine)
        if found != wanted:
            yield f"{name} is {' '.join(found)}, the tag says {' '.join(wanted)}"
        for what in ("hard_float", "neon"):
            want = wheel.target.get("float_abi") == "hard" if what == "hard_float" else wheel.target.get(what)
            if library.machine == "arm" and want is not None and getattr(library, what) != want:
                yield f"{name}: {what.replace('_', ' ')} is {getattr(library, what)}, not {want}"
        if wheel.target["format"] == "macho":
            system = {"Darwin": "macos", "iOS": "ios"}[wheel.target["system"]]
            if library.platform != system or library.min_os != wheel.target["min_os"]:
                yield f"{name} is for {library.platform} {library.min_os}, not {system} {wheel.target['min_os']}"


def glibc(wheel: Wheel) -> Iterator[str]:
    """No function of a newer glibc than the tag's."""
    level = wheel.target.get("glibc")
    most = tuple(map(int, level.split("."))) if level else (0, 0)
    for name, library in wheel.libraries.items():
        for file, version in library.versions:
            if match := re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", version):
                if (int(match[1]), int(match[2])) > most:
                    yield f"{name} wants {version} of {file}; {f'the tag allows {level}' if level else 'this is musl'}"
            elif level and version.startswith("GLIBC"):
                yield f"{name} wants {version} of {file}"


def needed(wheel: Wheel) -> Iterator[str]:
    """No library but the system's."""
    allowed = [word.lower() for word in wheel.target.get("needed", [])]
    for name, library in wheel.libraries.items():
        for other in library.needed:
            if not any(
                other.lower() == word or (word.endswith("-") and other.lower().startswith(word)) for word in allowed
            ):
                yield f"{name} needs {other}"
        if library.run_path:
            yield f"{name} looks for libraries in {library.run_path}"
        if library.soname and re.search(r"\.so\.\d", library.soname):
            yield f"{name} is called {library.soname}: wheels hold no symbolic links"


def alignment(wheel: Wheel) -> Iterator[str]:
    """Segments can be mapped by kernels with large pages."""
    least = wheel.target.get("min_align", 0)
    for name, library in wheel.libraries.items():
        if library.format == "elf" and library.align < least:
            yield f"{name} has segments aligned to {library.align} bytes, fewer than {least}"


def exports(wheel: Wheel) -> Iterator[str]:
    """Nothing is exported but edgellm_*."""
    for name, library in wheel.libraries.items():
        allowed = OPERATORS if library.format == "macho" else re.compile("edgellm_")
        foreign = sorted(symbol for symbol in library.exports if not allowed.match(symbol))
        if foreign:
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            yield f"{name} exports {', '.join(foreign[:3])}{more}"
        if not library.exports:
            yield f"{name} exports nothing"


def nodelete(wheel: Wheel) -> Iterator[str]:
    """It is never unloaded: zig adds no crtbeginS.o, so C++ destructors would run on unmapped code after dlclose."""
    for name, library in wheel.libraries.items():
        if not library.nodelete:
            yield f"{name} is not linked with -z nodelete: processes that close it would crash at their end"
        if library.exec_stack:
            yield f"{name} wants an executable stack"


def paths(wheel: Wheel) -> Iterator[str]:
    """No folder of the machine that built it."""
    ours = [str(ROOT).encode(), str(cache()).encode()]
    for name, data in wheel.files.items():
        if name in wheel.libraries:
            found = FOREIGN_PATH.search(data)
            word = found[0] if found else next((path for path in ours if path in data), None)
        else:
            word = next((path for path in ours if path in data), None)
        if word:
            yield f"{name} holds the path {word.decode('utf-8', 'replace')[:80]}"


def stripped(wheel: Wheel) -> Iterator[str]:
    """No symbol table, no debugging information."""
    for name, library in wheel.libraries.items():
        if library.debug:
            yield f"{name} has debugging information"
        if library.symbols and library.format != "macho":  # there nlist also holds what the loader needs
            yield f"{name} has a symbol table of {library.symbols} entries"
        if library.format == "macho" and not library.signed:
            yield f"{name} is not signed: the system would not load it"


def count_instructions(library: Library) -> dict[str, int]:
    """How many A64 words of each kind of INSTRUCTIONS the code has."""
    found = dict.fromkeys(INSTRUCTIONS, 0)
    for code in library.code:
        for (word,) in struct.iter_unpack("<I", code[: len(code) // 4 * 4]):
            for kind, patterns in INSTRUCTIONS.items():
                for mask, value in patterns:
                    if word & mask == value:
                        found[kind] += 1
    return found


def instructions(wheel: Wheel) -> Iterator[str]:
    """Those of the fast kernels are there, those that nobody asks for are not."""
    for name, library in wheel.libraries.items():
        if library.machine not in ("aarch64", "arm64"):
            continue
        found = count_instructions(library)
        for kind in wheel.target.get("must", []):
            if not found[kind]:
                yield f"{name} has no {kind} instruction: a fast kernel is missing"
        for kind in wheel.target.get("never", []):
            if found[kind]:
                yield f"{name} has {found[kind]} {kind} instructions, which the oldest processor of the tag lacks"


def size(wheel: Wheel) -> Iterator[str]:
    """As small as promised."""
    n = wheel.path.stat().st_size
    if n > wheel.target["max_mb"] * 1_000_000:
        yield f"the wheel has {n / 1e6:.2f} MB, more than {wheel.target['max_mb']}"


CHECKS: list[Callable[[Wheel], Iterator[str]]] = [
    tags, record, duplicates, contents, machine, glibc, needed, alignment, exports, nodelete, paths, stripped,
    instructions, size,
]  # fmt: skip


def check(path: Path, target: dict[str, Any]) -> dict[str, list[str]]:
    """Findings by check; empty lists where all is well."""
    wheel = open_wheel(path, target)
    return {one.__name__: list(one(wheel)) for one in CHECKS}


def main() -> int:
    """Check the wheels named."""
    if len(sys.argv) < 3:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    wrong = 0
    try:
        target = target_named(sys.argv[1])
        for name in sys.argv[2:]:
            found = [f"{kind}: {text}" for kind, texts in check(Path(name), target).items() for text in texts]
            print(f"{name}: {len(CHECKS)} checks, {len(found)} findings", *found, sep="\n  ")
            wrong += len(found)
    except Stop as error:
        print(f"cross/check.py: {error}", file=sys.stderr)
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
