"""
Turn the declarations of include/edgellm.h into a Python module.

The text between the two cdef lines goes to cffi as it stands, minus the export macro. The module that comes out
(out-of-line, ABI mode) holds no machine code: it is the same for every Python and every platform.

Usage: python make_ffi.py HEADER OUTPUT
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def declarations(header: str) -> str:
    """The C declarations between ``/* cdef: begin */`` and ``/* cdef: end */`` of *header*."""
    begin, end = "/* cdef: begin */", "/* cdef: end */"
    if header.count(begin) != 1 or header.count(end) != 1:
        raise SystemExit(f"edgellm.h must hold the lines '{begin}' and '{end}' once each")
    return re.sub(r"\bEDGELLM_API\s+", "", header.split(begin)[1].split(end)[0])


def main() -> None:
    """Write the module, complete or not at all."""
    try:
        import cffi
    except ImportError:
        raise SystemExit(f"cffi is needed to build edgellm. Run\n  {sys.executable} -m pip install cffi") from None
    header, output = Path(sys.argv[1]), Path(sys.argv[2])
    ffi = cffi.FFI()
    ffi.set_source("edgellm._edgellm_ffi", None)
    ffi.cdef(declarations(header.read_text(encoding="utf-8")))
    part = output.with_suffix(".part")
    ffi.emit_python_code(str(part))
    part.replace(output)


if __name__ == "__main__":
    main()
