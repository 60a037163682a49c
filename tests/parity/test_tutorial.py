"""
docs/adding-a-model.md, followed to the letter: its one file is built into a copy of the library, and parity judges it.

Only the library is compiled; ggml's modules are those beside the library under test. With ccache that takes seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import _native
from edgellm.testing import table, tiny_model
from tests.support import reference
from tests.support.gguf_reader import read_gguf, write_f32_copy

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "adding-a-model.md").read_text(encoding="utf-8")
COPIED = ("csrc", "cmake", "include", "tests/c", "examples/c", "third_party", "CMakeLists.txt")


def block(mark: str) -> str:
    """The code behind ``<!-- mark -->`` in the document."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n```\w+\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found, f"docs/adding-a-model.md has no code marked {mark}"
    return found[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def ggml_source() -> list[str]:
    """Where a build of this copy has found ggml, for another to need no archive."""
    for cache in sorted(ROOT.glob("build/*/CMakeCache.txt")):
        found = re.search(r"^EDGELLM_GGML_SOURCE:PATH=(.+)$", cache.read_text("utf-8", "replace"), re.MULTILINE)
        if found and Path(found[1]).is_dir():
            return [f"-DEDGELLM_GGML_SOURCE={found[1]}"]
    return []


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with the document's family."""
    for program in ("cmake", "ninja", "cc", "c++"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    source = tmp_path_factory.mktemp("tutorial")
    for name in COPIED:  # with the files' times, so that ccache trusts them
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, source / name)
    path = re.search(r"<!-- file: (\S+) -->", DOCUMENT)
    assert path, "docs/adding-a-model.md names no file"
    assert not (source / path[1]).exists()
    (source / path[1]).write_text(block(f"file: {path[1]}"), encoding="utf-8")
    options = ["-DEDGELLM_DEVELOPER=ON", "-DEDGELLM_IN_SOURCE=OFF", "-DEDGELLM_TENSORS=OFF", *ggml_source()]
    made = run(
        "cmake", "-S", ".", "-B", "b", "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}", *options,
        cwd=source, EDGELLM_OFFLINE="1",
    )  # fmt: skip
    if made.returncode != 0 and "EDGELLM_OFFLINE" in made.stderr:
        pytest.skip("ggml's sources are not on this machine")
    assert made.returncode == 0, made.stderr
    made = run("ninja", "-C", "b", "edgellm", cwd=source)
    assert made.returncode == 0, made.stdout
    (built,) = (source / "b" / "lib").glob("libedgellm.*")
    for module in _native.library_path().parent.glob("edgellm_ggml_*"):
        shutil.copy2(module, built.parent)
    return built


@pytest.mark.unsanitized("it builds a library of its own")
def test_one_file_is_a_family(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {**vars(reference), "np": np}
    exec(block("reference"), names)  # the document's forward pass
    rows: dict[str, Any] = eval("{" + block("table") + "}", vars(table).copy())  # and its line of the table
    ((arch, family),) = rows.items()
    monkeypatch.setitem(table.FAMILIES, arch, family)
    model = tiny_model(arch, tmp_path / f"{arch}.gguf")
    tokens = np.array([(7 * i * i + 3 * i + 5) % 290 for i in range(168)])
    positions = np.arange(0, 168, 3)
    keys, tensors = read_gguf(write_f32_copy(model, tmp_path / "copy"))
    logits = names[arch](keys, tensors, tokens)[positions]
    np.savez(tmp_path / f"{arch}.npz", tokens=tokens, positions=positions, logits=logits)
    command = (sys.executable, "-m", "tools.parity", "--dir", tmp_path)
    ours = {"EDGELLM_LIBRARY": str(library), "EDGELLM_CPU_BACKEND": "edgellm"}  # ggml's rounds more
    done = run(*command, cwd=ROOT, PYTHONPATH=os.pathsep.join(sys.path), **ours)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{arch} .*e-1\d .* pass$", done.stdout, re.MULTILINE), done.stdout
    without = run(*command, cwd=ROOT, PYTHONPATH=os.pathsep.join(sys.path))
    assert re.search(rf"^{arch} .* not yet$", without.stdout, re.MULTILINE), without.stdout
