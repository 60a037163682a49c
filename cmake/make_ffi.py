"""
Turn the declarations of include/edgellm.h into two Python modules without machine code, the same for every platform.

The text between the two cdef lines goes to cffi as it stands, minus the export macro (out-of-line, ABI mode). Beside
what comes out lies ``_edgellm_table.py``, the same declarations as plain Python data, for platforms that cffi does
not serve (edgellm/_ctypes_ffi.py).

Usage: python make_ffi.py HEADER OUTPUT
"""

from __future__ import annotations

import pprint
import re
import sys
from pathlib import Path
from typing import Any


def declarations(header: str) -> str:
    """The C declarations between ``/* cdef: begin */`` and ``/* cdef: end */`` of *header*."""
    begin, end = "/* cdef: begin */", "/* cdef: end */"
    if header.count(begin) != 1 or header.count(end) != 1:
        raise SystemExit(f"edgellm.h must hold the lines '{begin}' and '{end}' once each")
    return re.sub(r"\bEDGELLM_API\s+", "", header.split(begin)[1].split(end)[0])


def table(text: str) -> dict[str, Any]:
    """
    The declarations *text* as data.

    Returns:
        ``ENUMS`` {name: number}, ``STRUCTS`` {name: [(member, type, count or None)]}, ``FUNCTIONS`` {name: (result,
        [argument types])}. A type is a C name or ``"*"`` for any pointer; an enum is ``int``.

    Raises:
        SystemExit: A line is none of these.
    """
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    enums: dict[str, int] = {}
    structs: dict[str, list[tuple[str, str, int | None]]] = {}
    functions: dict[str, tuple[str, list[str]]] = {}
    integers: set[str] = set()

    def kind(words: str) -> str:
        if "*" in words:
            return "*"
        name = words.replace("const", " ").split()[0]
        return "int" if name in integers else name

    def member(line: str) -> tuple[str, str, int | None]:
        match = re.fullmatch(r"(.*?)(\w+)(?:\[(\d+)\])?", line.strip())
        assert match, line
        return match[2], kind(match[1]), int(match[3]) if match[3] else None

    for match in re.finditer(r"\s*(?:typedef\s+(enum|struct)\s+(\w+)\s*(?:\{([^}]*)\}\s*)?(\w+)|([^;{}]+?));", text):
        what, _, body, name, function = match.groups()
        if what == "enum":
            integers.add(name)
            enums |= {key.strip(): int(value) for key, value in (item.split("=") for item in body.split(","))}
        elif what == "struct" and body is not None:
            structs[name] = [member(line) for line in body.split(";") if line.strip()]
        elif function is not None:
            head = re.fullmatch(r"(.*?)(\w+)\((.*)\)", " ".join(function.split()))
            if not head:
                raise SystemExit(f"make_ffi.py does not understand: {function.strip()}")
            arguments = [] if head[3] == "void" else [member(one)[1] for one in head[3].split(",")]
            functions[head[2]] = (kind(head[1]), arguments)
    return {"ENUMS": enums, "STRUCTS": structs, "FUNCTIONS": functions}


def _write(output: Path, text: str) -> None:
    part = output.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(output)


def main() -> None:
    """Write the modules, each complete or not at all."""
    try:
        import cffi
    except ImportError:
        raise SystemExit(f"cffi is needed to build edgellm. Run\n  {sys.executable} -m pip install cffi") from None
    header, output = Path(sys.argv[1]), Path(sys.argv[2])
    text = declarations(header.read_text(encoding="utf-8"))
    data = "\n".join(f"{name} = {pprint.pformat(value, width=118)}" for name, value in table(text).items())
    _write(output.with_name("_edgellm_table.py"), f"# made by cmake/make_ffi.py from edgellm.h\n{data}\n")
    ffi = cffi.FFI()
    ffi.set_source("edgellm._edgellm_ffi", None)
    ffi.cdef(text)
    part = output.with_suffix(".part")
    ffi.emit_python_code(str(part))
    part.replace(output)


if __name__ == "__main__":
    main()
