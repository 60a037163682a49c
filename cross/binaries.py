"""
What is in a shared library, of Linux, macOS or Windows: just what check.py asks, read with struct.

Sources: ELF and the ARM ELF specification (addenda: build attributes), Apple's mach-o/loader.h and nlist.h, Microsoft's
PE format. Damaged files raise `Broken`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any


class Broken(Exception):  # noqa: N818 - a verdict, like its sentences
    """Not a library, or one that ends too early."""


@dataclass
class Library:
    """A library as check.py sees it."""

    format: str
    machine: str
    needed: list[str] = field(default_factory=list)
    exports: list[str] = field(default_factory=list)
    code: list[bytes] = field(default_factory=list)  # executable sections
    soname: str | None = None
    run_path: str | None = None
    nodelete: bool = False
    align: int = 0  # smallest alignment of a loadable segment
    symbols: int = 0  # entries of the symbol table that -s removes
    debug: bool = False
    exec_stack: bool = False
    versions: list[tuple[str, str]] = field(default_factory=list)  # (library, GLIBC_2.17)
    hard_float: bool | None = None  # 32-bit ARM
    neon: bool | None = None
    platform: str | None = None  # Mach-O: macos, ios
    min_os: str | None = None
    signed: bool = False


def read(data: bytes) -> Library:
    """The library in *data*."""
    try:
        if data[:4] == b"\x7fELF":
            return _elf(data)
        if data[:4] == b"\xcf\xfa\xed\xfe":
            return _macho(data)
        if data[:2] == b"MZ":
            return _pe(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Broken(f"damaged: {error}") from None
    raise Broken("neither ELF, Mach-O nor PE")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


# ---- ELF -------------------------------------------------------------------------------------------------------------

_ELF_MACHINES = {40: "arm", 62: "x86_64", 183: "aarch64", 3: "x86", 243: "riscv"}
_LOAD, _DYNAMIC, _GNU_STACK = 1, 2, 0x6474E551
_NEEDED, _SONAME, _RPATH, _RUNPATH, _FLAGS_1 = 1, 14, 15, 29, 0x6FFFFFFB


def _elf(data: bytes) -> Library:
    wide = data[4] == 2
    if data[5] != 1:
        raise Broken("big-endian")
    machine = struct.unpack_from("<H", data, 18)[0]
    library = Library("elf", _ELF_MACHINES.get(machine, f"machine {machine}"))
    segments_at, sections_at, flags = struct.unpack_from("<QQI" if wide else "<III", data, 32 if wide else 28)
    _, segment_size, n_segments, section_size, n_sections, names_in = struct.unpack_from(
        "<6H", data, 52 if wide else 40
    )
    for i in range(n_segments):
        at = segments_at + i * segment_size
        if wide:
            kind, access, *_, align = struct.unpack_from("<IIQQQQQQ", data, at)
        else:
            kind, _, _, _, _, _, access, align = struct.unpack_from("<8I", data, at)
        if kind == _LOAD:
            library.align = min(library.align or align, align)
        elif kind == _GNU_STACK:
            library.exec_stack = bool(access & 1)
    sections: list[dict[str, Any]] = []
    for i in range(n_sections):
        name, kind, access, _, at, size, link, info, _, entry_size = struct.unpack_from(
            "<IIQQQQIIQQ" if wide else "<10I", data, sections_at + i * section_size
        )
        part = data[at : at + size] if kind != 8 else b""
        sections.append(
            {"name": name, "kind": kind, "flags": access, "data": part, "link": link, "info": info, "size": entry_size}
        )
    names = sections[names_in]["data"] if sections else b""
    for section in sections:
        section["name"] = _text(names, section["name"])
        if section["flags"] & 4:  # executable
            library.code.append(section["data"])
        if section["name"].startswith(".debug"):
            library.debug = True
        if section["kind"] == 2:
            library.symbols = len(section["data"]) // (24 if wide else 16)
        elif section["kind"] == 6:
            _elf_dynamic(library, section["data"], sections[section["link"]]["data"], wide)
        elif section["kind"] == 11:
            _elf_exports(library, section["data"], sections[section["link"]]["data"], wide)
        elif section["kind"] == 0x6FFFFFFE:
            _elf_versions(library, section["data"], sections[section["link"]]["data"], section["info"])
        elif section["name"] == ".ARM.attributes":
            library.neon = _arm_neon(section["data"])
    if library.machine == "arm":
        library.hard_float = bool(flags & 0x400)
    return library


def _elf_dynamic(library: Library, data: bytes, strings: bytes, wide: bool) -> None:
    for tag, value in struct.iter_unpack("<QQ" if wide else "<II", data):
        if tag == 0:
            break
        if tag == _NEEDED:
            library.needed.append(_text(strings, value))
        elif tag == _SONAME:
            library.soname = _text(strings, value)
        elif tag in (_RPATH, _RUNPATH):
            library.run_path = _text(strings, value)
        elif tag == _FLAGS_1:
            library.nodelete = bool(value & 8)


def _elf_exports(library: Library, data: bytes, strings: bytes, wide: bool) -> None:
    for fields in struct.iter_unpack("<IBBHQQ" if wide else "<IIIBBH", data):
        name, info, section = (fields[0], fields[1], fields[3]) if wide else (fields[0], fields[3], fields[5])
        if section != 0 and info >> 4 != 0:  # defined, and not local
            library.exports.append(_text(strings, name))


def _elf_versions(library: Library, data: bytes, strings: bytes, n: int) -> None:
    at = 0
    for _ in range(n):
        _, n_versions, file, first, following = struct.unpack_from("<HHIII", data, at)
        inner = at + first
        for _ in range(n_versions):
            _, _, _, name, further = struct.unpack_from("<IHHII", data, inner)
            library.versions.append((_text(strings, file), _text(strings, name)))
            inner += further
        at += following


def _arm_neon(data: bytes) -> bool:
    """Tag_Advanced_SIMD_arch (12) of the aeabi section: numbers, but for the tags that are strings."""
    at = data.find(b"aeabi\0") + 6 + 5  # then File tag and its length
    if at < 11:
        return False
    while at < len(data):
        tag, at = _leb(data, at)
        if tag in (4, 5, 67) or (tag > 32 and tag % 2 == 1):
            at = data.index(b"\0", at) + 1
            continue
        value, at = _leb(data, at)
        if tag == 32:
            at = data.index(b"\0", at) + 1
        if tag == 12:
            return value > 0
    return False


def _leb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


# ---- Mach-O ----------------------------------------------------------------------------------------------------------


def _macho(data: bytes) -> Library:
    _, machine, _, _, n_commands = struct.unpack_from("<5I", data)
    library = Library("macho", {0x0100000C: "arm64", 0x01000007: "x86_64"}.get(machine, hex(machine)))
    library.nodelete = True  # no destructor of ours is registered through a start-up file there
    at = 32
    for _ in range(n_commands):
        command, size = struct.unpack_from("<II", data, at)
        if command == 0x19:  # LC_SEGMENT_64
            n_sections = struct.unpack_from("<I", data, at + 64)[0]
            for i in range(n_sections):
                section = at + 72 + 80 * i
                length, offset = struct.unpack_from("<QI", data, section + 40)
                if data[section : section + 7] == b"__text\0":
                    library.code.append(data[offset : offset + length])
                library.debug |= data[section + 16 : section + 23] == b"__DWARF"
        elif command in (0xC, 0x80000018):  # LC_LOAD_DYLIB and its weak kind
            library.needed.append(_text(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        elif command == 0xD:
            library.soname = _text(data, at + struct.unpack_from("<I", data, at + 8)[0])
        elif command == 0x8000001C:
            library.run_path = _text(data, at + struct.unpack_from("<I", data, at + 8)[0])
        elif command == 0x32:  # LC_BUILD_VERSION
            platform, version = struct.unpack_from("<II", data, at + 8)
            library.platform = {1: "macos", 2: "ios", 7: "ios-simulator"}.get(platform, str(platform))
            library.min_os = f"{version >> 16}.{version >> 8 & 255}"
        elif command == 0x1D:
            library.signed = True
        elif command == 2:  # LC_SYMTAB
            symbols, n_symbols, strings = struct.unpack_from("<III", data, at + 8)
            for name, kind, _, _, _ in struct.iter_unpack("<IBBHQ", data[symbols : symbols + 16 * n_symbols]):
                if kind & 0xE0 == 0 and kind & 0x0E == 0x0E and kind & 1 and not kind & 0x10:
                    library.exports.append(_text(data, strings + name).removeprefix("_"))
                elif kind & 0xE0 == 0 and kind & 0x0E == 0x0E:
                    library.symbols += 1
        at += size
    return library


# ---- PE --------------------------------------------------------------------------------------------------------------


def _pe(data: bytes) -> Library:
    at = struct.unpack_from("<I", data, 60)[0]
    machine, n_sections, _, symbols, n_symbols, optional = struct.unpack_from("<HHIIIH", data, at + 4)
    library = Library("pe", {0x8664: "x86_64", 0xAA64: "aarch64", 0x14C: "x86"}.get(machine, hex(machine)))
    library.symbols, library.nodelete = n_symbols if symbols else 0, True
    sections = []
    for i in range(n_sections):
        head = at + 24 + optional + 40 * i
        name = data[head : head + 8].rstrip(b"\0")
        size, address, n_raw, raw = struct.unpack_from("<IIII", data, head + 8)
        sections.append((address, max(size, n_raw), raw))
        if struct.unpack_from("<I", data, head + 36)[0] & 0x20000000:
            library.code.append(data[raw : raw + n_raw])
        library.debug |= name.startswith((b".debug", b"/"))

    def place(address: int) -> int:
        for begin, size, raw in sections:
            if begin <= address < begin + size:
                return int(address - begin + raw)
        raise Broken(f"no section holds address {address:#x}")

    exports, _, imports, _ = struct.unpack_from("<4I", data, at + 24 + 112)
    if exports:
        n_names, _, names = struct.unpack_from("<III", data, place(exports) + 24)
        for i in range(n_names):
            library.exports.append(_text(data, place(struct.unpack_from("<I", data, place(names) + 4 * i)[0])))
    while imports:
        name = struct.unpack_from("<I", data, place(imports) + 12)[0]
        if not name:
            break
        library.needed.append(_text(data, place(name)))
        imports += 20
    return library
