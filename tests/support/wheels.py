"""Wheels put together by hand."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgellm import __version__

ELF = {"aarch64": 183, "armv7l": 40, "x86_64": 62}


def elf(machine: str) -> bytes:
    """The beginning of a program of *machine*."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + ELF[machine].to_bytes(2, "little") + bytes(44)


def make_wheel(
    folder: Path,
    platform: str,
    files: Mapping[str, bytes] | None = None,
    needs: Sequence[str] = (),
    name: str = "edgellm",
) -> Path:
    """``NAME-VERSION-py3-none-PLATFORM.whl`` in *folder*, with a library that is none by default."""
    content = dict(files or {f"{name}/__init__.py": b"", f"{name}/lib/libedgellm.so": elf("aarch64")})
    info = f"{name}-{__version__}.dist-info"
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {__version__}\n{requires}".encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{platform}\n".encode()
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in content.items()
    ]
    content[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,"]) + "\n").encode()
    path = folder / f"{name}-{__version__}-py3-none-{platform}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in content.items():
            archive.writestr(member, data)
    return path
