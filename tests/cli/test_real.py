"""The program with the real library and a tiny model it computes: no stand-ins, processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _library() -> bool:
    try:
        from edgellm import _native

        return bool(_native.system_info())
    except (ImportError, OSError, AttributeError):
        return False


pytestmark = pytest.mark.skipif(not _library(), reason="the library is not built: make")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from tests.support.tiny import tiny_model

    yield tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama")


def environment(home: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "EDGELLM_HOME": str(home)}


def run(home: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgellm", *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, input=stdin, env=environment(home)
    )


def test_answers_repeat(tiny: Path, home: Path) -> None:
    first = run(home, "run", str(tiny), "hello there", "--temp", "0", "-n", "12")
    again = run(home, "run", str(tiny), "hello there", "--temp", "0", "-n", "12")
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout != ""
    seeded = [run(home, "run", str(tiny), "hello", "--seed", "3", "-n", "12").stdout for _ in range(2)]
    assert seeded[0] == seeded[1]


def test_json_counts_and_timings(tiny: Path, home: Path) -> None:
    result = run(home, "run", str(tiny), "--json", "-n", "5", stdin="Name three colours.\n")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["finish_reason"] in ("stop", "length")
    assert report["tokens"]["prompt"] > 10
    assert 0 < report["tokens"]["generated"] <= 5
    assert all(report["timings"][key] > 0 for key in ("load_ms", "first_token_ms", "prefill_per_s", "total_ms"))


def test_raw_differs_from_chat(tiny: Path, home: Path) -> None:
    raw = json.loads(run(home, "run", str(tiny), "hello", "--raw", "--json", "-n", "2").stdout)
    chat = json.loads(run(home, "run", str(tiny), "hello", "--json", "-n", "2").stdout)
    assert raw["tokens"]["prompt"] < chat["tokens"]["prompt"]


def test_names_show_and_tokenize(tiny: Path, home: Path) -> None:
    assert run(home, "pull", str(tiny), "--name", "tiny:test").returncode == 0
    assert run(home, "run", "tiny:test", "hello", "-n", "3").returncode == 0
    shown = run(home, "show", "tiny:test")
    assert shown.returncode == 0, shown.stderr
    assert "llama" in shown.stdout
    report: dict[str, Any] = json.loads(run(home, "show", "tiny:test", "--json").stdout)
    assert report["metadata"]["general.architecture"] == "llama"
    cut = json.loads(run(home, "tokenize", "tiny:test", "the rain", "--json").stdout)
    assert "".join(cut["pieces"]) == "the rain"
    assert len(cut["ids"]) == cut["n_tokens"] < 8


def test_bench(tiny: Path, home: Path) -> None:
    result = run(home, "bench", str(tiny), "-p", "64", "-n", "8", "-r", "2", "--parallel", "3", "--json")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [row["test"] for row in rows] == ["pp64", "tg8"]
    assert all(row["avg_ts"] > 0 and len(row["samples_ts"]) == 2 for row in rows)


def test_doctor(home: Path) -> None:
    result = run(home, "doctor", "--json")
    assert result.returncode == 0, result.stdout
    assert "error" not in json.loads(result.stdout)["system"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.gguf", b"hello, this is text"), ("empty.gguf", b""), ("cut.gguf", b"GGUF\x03\0\0\0"),
        ("zeros.gguf", bytes(500)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["run", "show", "tokenize", "bench"])
def test_files_that_are_no_models(command: str, name: str, content: bytes, home: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    result = run(home, command, str(path), *(["hi"] if command in ("run", "tokenize") else []))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("edgellm: ")
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) > 30


def test_no_permission(tiny: Path, home: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = tmp_path / "secret.gguf"
    path.write_bytes(tiny.read_bytes())
    path.chmod(0)
    result = run(home, "run", str(path), "hi")
    assert result.returncode == 1
    assert "ermission denied" in result.stderr


def test_prompt_longer_than_the_context(tiny: Path, home: Path) -> None:
    result = run(home, "run", str(tiny), "word " * 2000)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "512" in result.stderr
    assert "use --ctx " in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("after", [0.0, 0.1, 0.2, 0.3, 0.5, 0.8])
def test_ctrl_c_at_any_stage(after: float, tiny: Path, home: Path) -> None:
    """One line at most, no traceback, at once; a signal before Python itself is up kills like any program."""
    command = [sys.executable, "-m", "edgellm", "run", str(tiny), "hello", "-n", "0", "--ctx", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(home))
    time.sleep(0.15 + after)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert time.monotonic() - began < 20  # the answer would take minutes
    assert process.returncode in (0, 1, 130, -signal.SIGINT)
    if process.returncode != -signal.SIGINT:
        assert b"Traceback" not in errors, errors.decode()


def test_an_answer_imports_little(tiny: Path, tmp_path: Path) -> None:
    """The whole way to an answer: what loads is what it needs, the template engine only for a chat.

    (--max-tokens: for -n, click 8.5 imports difflib to see whether a long option was meant.)
    """
    code = (
        "import sys; from edgellm.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "sys.stderr.write('\\n' + ' '.join(sys.modules)); sys.exit(code)"
    )
    heavy = {
        "numpy", "rich", "prompt_toolkit", "huggingface_hub", "platformdirs", "asyncio", "concurrent.futures",
        "multiprocessing", "logging", "subprocess", "ctypes", "difflib", "traceback", "decimal", "email", "http",
        "socket", "ssl", "urllib.request", "xml", "zipfile", "tomllib", "tomli", "importlib.metadata",
        "importlib.resources", "edgellm.store.store", "edgellm.store.catalog", "edgellm.cli._chat",
        "edgellm.cli.bench", "edgellm.tensors",
    }  # fmt: skip
    for how, engine in (("--chat", {"jinja2"}), ("--raw", set())):
        done = subprocess.run(
            [sys.executable, "-c", code, "run", str(tiny), "hi", "--max-tokens", "1", "--temp", "0", how],
            check=False, capture_output=True, text=True, env=environment(tmp_path),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        loaded = set(done.stderr.splitlines()[-1].split())
        assert "edgellm.generation" in loaded
        assert loaded & (heavy | {"jinja2"}) == engine, how
