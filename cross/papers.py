"""What lies beside a wheel: SHA256SUMS, a bill of materials (CycloneDX 1.5), and what was proven of it."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

from common import ROOT, pins, write_whole

LLVM = "Apache-2.0 WITH LLVM-exception"


def write_papers(wheel: Path, target: dict[str, Any], results: list[dict[str, str]]) -> None:
    """Write them for *wheel*; SHA256SUMS keeps the lines of other files."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    proofs = {
        "wheel": wheel.name,
        "sha256": digest,
        "target": target["name"],
        "versions": versions(),
        "results": results,
    }
    beside = {f"{wheel.name}.cdx.json": sbom(wheel, digest), f"{wheel.name}.proofs.json": proofs}
    for name, content in beside.items():
        write_whole(wheel.with_name(name), (json.dumps(content, indent=1) + "\n").encode())
    sums = wheel.with_name("SHA256SUMS")
    old = [line.partition("  ") for line in sums.read_text().splitlines()] if sums.exists() else []
    lines = {name: digest for digest, _, name in old}
    for name in (wheel.name, *beside):
        lines[name] = hashlib.sha256(wheel.with_name(name).read_bytes()).hexdigest()
    lines = {name: line for name, line in lines.items() if wheel.with_name(name).exists()}
    write_whole(sums, "".join(f"{line}  {name}\n" for name, line in sorted(lines.items())).encode())


def ggml_version() -> str:
    """Of the ggml inside: the pinned package's version starts with it."""
    found = re.search(r"libggml-python==(\d+\.\d+\.\d+)", (ROOT / "cmake" / "ggml.txt").read_text())
    assert found
    return found[1]


def versions() -> dict[str, str]:
    """Of what made the wheel."""
    header = re.search(r'EDGELLM_VERSION "(.*?)"', (ROOT / "include" / "edgellm.h").read_text())
    assert header
    return {"edgellm": header[1], "ggml": ggml_version(), **pins()}


def sbom(wheel: Path, digest: str) -> dict[str, Any]:
    """
    What is inside the wheel. The serial number comes from its bytes, so that the same wheel has the same bill.

    Source: CycloneDX 1.5, JSON.
    """
    made = versions()

    def part(name: str, version: str, licence: str, purl: str, about: str) -> dict[str, Any]:
        kind = "expression" if " " in licence else "license"
        licences: list[Any] = [{"expression": licence}] if kind == "expression" else [{"license": {"id": licence}}]
        return {
            "type": "library", "bom-ref": purl, "name": name, "version": version, "description": about,
            "licenses": licences, "purl": purl,
        }  # fmt: skip

    zig = made["ziglang"]
    inside = [
        part("ggml", made["ggml"], "MIT", f"pkg:generic/ggml@{made['ggml']}", "tensors and CPU kernels, compiled in"),
        part("libc++", zig, LLVM, f"pkg:generic/libcxx@{zig}", "C++ runtime of the compiler, compiled in"),
        part("compiler-rt", zig, LLVM, f"pkg:generic/compiler-rt@{zig}", "compiler's helper functions, compiled in"),
    ]
    me = f"pkg:pypi/edgellm@{made['edgellm']}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library", "bom-ref": me, "name": "edgellm", "version": made["edgellm"], "purl": me,
                "licenses": [{"license": {"id": "MIT"}}], "hashes": [{"alg": "SHA-256", "content": digest}],
                "properties": [{"name": "edgellm:wheel", "value": wheel.name}],
            },
            "tools": {
                "components": [
                    {"type": "application", "name": name, "version": version} for name, version in pins().items()
                ]
            },
        },
        "components": inside,
        "dependencies": [{"ref": me, "dependsOn": [one["bom-ref"] for one in inside]}],
    }  # fmt: skip
