"""A Debian for 64-bit ARM gets edgellm by `edgellm flash`, and answers, offline, run by an emulator inside itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import common
import emulate
import sysroot
import zigtools
from edgellm.testing import tiny_model
from tests.support import examples
from tests.support.cross import Made, missing
from tests.support.wheels import elf

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.cross


def edgellm(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgellm", *map(str, arguments)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(made: Callable[[str], Made]) -> Path:
    return made("rpi-aarch64")[1]


@pytest.fixture(scope="module")
def flashed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the system that the wheel was proven in, flashed."""
    folder = tmp_path_factory.mktemp("arm")
    root = folder / "root"
    shutil.copytree(sysroot.sysroot("arm64"), root, symlinks=True)
    (root / "usr/lib/systemd").mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/systemd/systemd").write_bytes(elf("aarch64"))
    model = tiny_model("llama", folder / "tiny.gguf")
    done = edgellm("flash", root, "--wheel", wheel, "--model", model, EDGELLM_HOME=str(folder / "home"))
    if "cannot reach its index" in done.stderr:
        missing("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    assert "self-test passed: 'edgellm run' works under emulation" in done.stderr
    return root


def inside(root: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run the device's Python in its own root file system; without any network, where a container allows to take it."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        missing("only root can change the root file system")
    emulator = emulate.qemu(common.target_named("rpi-aarch64")["emulator"])
    if "static" not in emulator.name:
        missing("only qemu-aarch64-static runs inside another root file system")
    shutil.copy(emulator, root / "emulator")
    try:
        alone = (
            ["unshare", "--net"]
            if subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL).returncode == 0
            else []
        )
        command = [*alone, "chroot", root, "/emulator", "/usr/bin/python3", *arguments]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **more}
        return subprocess.run(command, input=b"The", capture_output=True, env=environment, timeout=300)
    finally:
        (root / "emulator").unlink()


def test_the_device_answers_offline(flashed: Path) -> None:
    done = inside(flashed, "/usr/local/bin/edgellm", "run", "tiny", "-n", "4", "--temp", "0", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert b'"generated": 4' in done.stdout
    done = inside(flashed, "/usr/local/bin/edgellm", "ls")
    assert b"tiny" in done.stdout


def test_the_device_answers_over_ctypes(flashed: Path) -> None:
    question = ("/usr/local/bin/edgellm", "run", "tiny", "-n", "4", "--temp", "0", "--json", "-")
    by_ctypes, by_cffi = inside(flashed, *question, EDGELLM_FFI="ctypes"), inside(flashed, *question)
    assert by_ctypes.returncode == 0, by_ctypes.stderr
    assert json.loads(by_ctypes.stdout)["text"] == json.loads(by_cffi.stdout)["text"]


def test_the_device_does_not_compile_at_every_start(flashed: Path) -> None:
    """What an answer imports has bytecode that the device's Python takes."""
    done = inside(flashed, "-v", "/usr/local/bin/edgellm", "run", "tiny", "-n", "1", "--json", "-")
    matches = [line for line in done.stderr.decode().splitlines() if "/opt/edgellm/" in line and " matches " in line]
    assert len(matches) > 20, done.stderr[-2000:]
    assert b"# wrote" not in done.stderr


def test_verify_and_units(flashed: Path) -> None:
    assert edgellm("flash", "--verify", flashed).returncode == 0
    assert (flashed / "etc/systemd/system/sockets.target.wants/edgellm.socket").is_symlink()


def test_a_broken_wheel_is_rolled_back(flashed: Path, wheel: Path, tmp_path: Path) -> None:
    """The library is for the right processor, but does not load: only running it can tell."""
    bad = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(bad, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info.filename, data[:4096] if info.filename.endswith("libedgellm.so") else data)
    before = sorted(str(path) for path in flashed.rglob("*"))
    model = tiny_model("llama", tmp_path / "tiny.gguf", seed=5)
    done = edgellm("flash", flashed, "--wheel", bad, "--model", model, EDGELLM_HOME=str(tmp_path / "home"))
    assert done.returncode == 1
    assert "the self-test failed (" in done.stderr
    assert "is as it was before" in done.stderr
    assert sorted(str(path) for path in flashed.rglob("*")) == before
    assert edgellm("flash", "--verify", flashed).returncode == 0


def test_c_example_on_arm(flashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = common.target_named("rpi-aarch64")
    tools = zigtools.installed()
    for name, value in zigtools.environment(tools).items():
        monkeypatch.setenv(name, value)
    compiler = zigtools.wrappers(tmp_path / "tools", tools, target, target["triple"]) / "clang"
    [library] = (flashed / "opt/edgellm/current/site/edgellm/lib").glob("libedgellm.so")
    program = examples.compiled(str(compiler), library, tmp_path)
    model = tiny_model("llama", tmp_path / "tiny.gguf")
    command = [emulate.qemu(target["emulator"]), "-L", flashed, program, model, "Hello", "-n", "4"]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
