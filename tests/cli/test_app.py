"""The program as a whole: help, versions, lazy imports, closed pipes, and the pages in docs/cli.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm.cli import _docs
from edgellm.cli.app import COMMANDS
from edgellm.cli.app import cli as group

ROOT = Path(__file__).resolve().parents[2]
Cli = Callable[..., Any]


def program(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own; *shell* is what follows it on a shell's line."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    command: Any = [sys.executable, "-m", "edgellm", *arguments]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )  # fmt: skip


def test_short_descriptions_are_the_commands_own() -> None:
    context = group.make_context("edgellm", ["ls"])
    for name, words in COMMANDS.items():
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert (command.help or "").splitlines()[0] == words


def test_usage(cli: Cli) -> None:
    assert cli().code == 2
    assert cli("--help").code == 0
    assert cli("-h").out.startswith("Usage: edgellm")
    assert cli("--version").out.startswith("edgellm ")
    unknown = cli("rnu")
    assert (unknown.code, unknown.out) == (2, "")
    assert "No such command 'rnu'" in unknown.err
    for name in COMMANDS:
        page = cli(name, "--help")
        assert (page.code, page.err) == (0, "")


def test_run_imports_little() -> None:
    """What loads before the model: no terminal toolkit, no network, no catalog, no other command."""
    code = (
        "import sys; from edgellm.cli import main, _model\n"
        "_model.load = lambda *a, **k: sys.exit('\\n'.join(sys.modules))\n"
        "main(['run', sys.argv[1], 'hi'])"
    )
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", code, __file__], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    loaded = set(result.stderr.split())
    assert "edgellm.cli.run" in loaded, result.stderr
    heavy = {
        "rich", "prompt_toolkit", "huggingface_hub", "numpy", "jinja2", "urllib.request", "http.client", "ssl",
        "zipfile", "subprocess", "tomllib", "tomli", "asyncio", "difflib", "platformdirs", "hashlib",
        "importlib.metadata", "traceback",
        "edgellm.store.store", "edgellm.store.catalog", "edgellm.cli._chat", "edgellm.cli.bench",
    }  # fmt: skip
    assert not loaded & heavy


@pytest.mark.skipif(sys.platform == "win32", reason="shell pipes are POSIX")
def test_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    result = program("ls", "--all", shell="| true; exit ${PIPESTATUS[0]}", EDGELLM_HOME=str(tmp_path))
    assert result.returncode in (0, 1)
    assert result.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_output_to_a_full_disk(tmp_path: Path) -> None:
    result = program("ls", "--all", shell="> /dev/full", EDGELLM_HOME=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == "edgellm: standard output cannot be written: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="shells that close streams are POSIX")
@pytest.mark.parametrize("streams", [">&-", "<&- >&-"])
def test_closed_output(streams: str, tmp_path: Path) -> None:
    result = program("--version", shell=streams)
    assert (result.returncode, result.stderr) == (
        1, "edgellm: standard output cannot be written: Bad file descriptor\n"
    )  # fmt: skip
    assert program("ls", shell=streams, EDGELLM_HOME=str(tmp_path)).returncode == 0  # which writes nothing there


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_remarks_that_cannot_be_written_decide_nothing(streams: str, tmp_path: Path) -> None:
    assert program("ls", shell=streams, EDGELLM_HOME=str(tmp_path)).returncode == 0  # "no models yet"
    assert program("--version", shell=streams).stdout.startswith("edgellm ")
    assert program("rnu", shell=streams).returncode == 2
    assert program("show", "nothing", shell=streams, EDGELLM_HOME=str(tmp_path)).returncode == 1
    assert program("show", "nothing", shell=f">&- {streams}", EDGELLM_DEBUG="1").returncode == 1


def test_help_pages_in_the_docs_are_true() -> None:
    """After a change: python -m edgellm.cli._docs docs/cli.md."""
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert _docs.missing(text) == []
    if f"<!-- pages printed by click {_docs.click_version()} -->" not in text:
        pytest.skip(f"docs/cli.md was written with another click than {_docs.click_version()}")
    assert _docs.updated(text) == text


def test_targets_and_what_building_says(cli: Cli, tmp_path: Path) -> None:
    listed = cli("targets")
    assert listed.code == 0
    assert "rpi-aarch64" in listed.out
    assert json.loads(cli("targets", "--json").out)[0]["tag"] == "manylinux_2_28_aarch64"
    unknown = cli("build-wheel", "--target", "pi")
    assert (unknown.code, unknown.out) == (2, "")
    assert "there is no target 'pi'; there are: rpi-aarch64, " in unknown.err
    (tmp_path / "file").touch()
    done = program("build-wheel", "--target", "rpi-aarch64", "--out", str(tmp_path / "file" / "x"))
    assert done.returncode == 2
    assert "name another folder with --out" in done.stderr


def test_building_outside_a_checkout_takes_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgellm.cli import _cross

    monkeypatch.setattr(_cross, "checkout", lambda: None)
    monkeypatch.delenv("EDGELLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("EDGELLM_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(_cross.SourcesMissing, match="EDGELLM_OFFLINE forbids fetching them: run this in a checkout"):
        _cross.sources()
    unpacked = tmp_path / "edgellm" / "sources" / f"edgellm-{_cross.__version__}"
    (unpacked / "cross").mkdir(parents=True)
    (unpacked / "cross" / "build.py").touch()
    assert _cross.sources() == unpacked


BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, settings=None):
    info = "edgellm-{version}.dist-info"
    os.mkdir(os.path.join(folder, info))
    with open(os.path.join(folder, info, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: edgellm\\nVersion: {version}\\n")
    return info
"""


def test_the_sources_come_by_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From wherever pip is told to look; what is not whole is not kept."""
    from edgellm.cli import _cross

    files = {
        "cross/build.py": "",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND.format(version=_cross.__version__),
        "PKG-INFO": f"Metadata-Version: 2.1\nName: edgellm\nVersion: {_cross.__version__}\n",
    }
    links = tmp_path / "links"
    links.mkdir()
    name = f"edgellm-{_cross.__version__}"
    for path, text in files.items():
        place = tmp_path / name / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    monkeypatch.setattr(_cross, "checkout", lambda: None)
    monkeypatch.chdir(tmp_path)
    for variable, value in (("NO_INDEX", "1"), ("CONFIG_FILE", os.devnull), ("FIND_LINKS", str(links))):
        monkeypatch.setenv(f"PIP_{variable}", value)
    monkeypatch.delenv("EDGELLM_OFFLINE", raising=False)
    monkeypatch.setenv("EDGELLM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(_cross.SourcesMissing, match=r"No matching distribution .*: run this in a checkout"):
        _cross.sources()
    assert not list((tmp_path / "cache" / "sources").iterdir())
    with tarfile.open(links / f"{name}.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / name, name)
    assert _cross.sources() == tmp_path / "cache" / "sources" / name
    assert [path.name for path in (tmp_path / "cache" / "sources").iterdir()] == [name]
