"""Includes and imports go down only: who may use whom, read from the sources."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
MIDDLE = ("cache", "sample", "tokenizer", "gguf", "cpu")  # these never include each other
ALLOWED = {
    "api": {"api", "engine", "models", *MIDDLE, "kernels", "base"},
    "engine": {"engine", "models", *MIDDLE, "kernels", "base"},
    "models": {"models", *MIDDLE, "base"},  # a graph knows nothing of how it is computed
    "cpu": {"cpu", "kernels", "base"},
    "kernels": {"kernels", "base"},
    "base": {"base"},
} | {name: {name, "base"} for name in MIDDLE if name != "cpu"}
FILES = sorted(p for p in CSRC.rglob("*.[ch]"))
FOLDER = {p: p.relative_to(CSRC).parts[0] for p in FILES}  # csrc/models/families belongs to models
OWNER = {p.name: folder for p, folder in FOLDER.items()} | {"families.inc": "models"}


def test_file_names_are_unique() -> None:
    assert len({p.name for p in FILES}) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CSRC).as_posix())
def test_includes_go_down(path: Path) -> None:
    for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M):
        base = name.rsplit("/", 1)[-1]
        if base in OWNER:
            assert OWNER[base] in ALLOWED[FOLDER[path]], f"{path.name} includes {name}"


def imports(path: Path) -> set[str]:
    """Modules of edgellm that a file imports, without the package's name: "_native", "store.store"."""
    found: set[str] = set()
    package = path.relative_to(ROOT / "src" / "edgellm").parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("edgellm.") for a in node.names if a.name.startswith("edgellm.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parent = package[: len(package) - node.level + 1]
                found |= {".".join([*parent, module] if module else [*parent, a.name]) for a in node.names}
            elif module == "edgellm":
                found |= {a.name for a in node.names}
            elif module.startswith("edgellm."):
                found.add(module.removeprefix("edgellm."))
    return found


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "src" / "edgellm").rglob("*.py")),
    ids=lambda p: p.relative_to(ROOT / "src" / "edgellm").as_posix(),
)
def test_imports_go_down(path: Path) -> None:
    top = path.relative_to(ROOT / "src" / "edgellm").parts[0]
    used = {name.split(".")[0] for name in imports(path)}
    if top not in ("cli", "server", "__main__.py"):
        assert not used & {"cli", "server"}
    if top == "scheduler":
        assert used <= {"scheduler"}
    if top == "store":
        assert used <= {"store", "errors"}
    if top == "tensors":
        assert used <= {"tensors", "_native", "errors"}
    elif top not in ("cli", "server", "tools"):
        assert "tensors" not in used  # lean installations have none
    if top == "tools":
        assert used <= {"tools", "tensors", "errors", "inspect"}  # files alone; `inspect` reads a header
    elif top not in ("cli", "server", "evaluation"):
        assert "tools" not in used
    if top == "evaluation":
        assert used <= {"evaluation", "tools", "_native", "errors"}
    if path.name != "_native.py":
        assert "_edgellm_ffi" not in used


def test_the_tensors_module_includes_one_header_of_ours() -> None:
    source = (ROOT / "src" / "edgellm" / "tensors" / "_tensors.cpp").read_text()
    assert re.findall(r'^#include "([^"]+)"', source, re.M) == ["api/tensors_table.h"]
