"""A Debian for 64-bit ARM gets edgellm by `edgellm flash`, and answers, offline, run by an emulator inside itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.testing import tiny_model
from tests.support import arm, examples
from tests.support.wheels import elf

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.cross


def edgellm(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgellm", *map(str, arguments)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def flashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the system, flashed."""
    arm.emulator()
    folder = tmp_path_factory.mktemp("arm")
    wheel, root = arm.wheel(folder), folder / "root"
    shutil.copytree(arm.debian(), root, symlinks=True)
    (root / "usr/lib/systemd").mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/systemd/systemd").write_bytes(elf("aarch64"))
    model = tiny_model("llama", folder / "tiny.gguf")
    done = edgellm("flash", root, "--wheel", wheel, "--model", model, EDGELLM_HOME=str(folder / "home"))
    if "cannot reach its index" in done.stderr:
        arm.missing("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    assert "self-test passed: 'edgellm run' works under emulation" in done.stderr
    return root


def inside(root: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run the device's Python in its own root file system without any network."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        arm.missing("only root can change the root file system")
    emulator = Path(arm.emulator())
    if "static" not in emulator.name:
        arm.missing("only qemu-aarch64-static runs inside another root file system")
    shutil.copy(emulator, root / "emulator")
    try:
        command = ["unshare", "--net", "chroot", root, "/emulator", "/usr/bin/python3", *arguments]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **more}
        return subprocess.run(command, input=b"The", capture_output=True, env=environment, timeout=300)
    finally:
        (root / "emulator").unlink()


def test_the_device_answers_offline(flashed: Path) -> None:
    done = inside(flashed, "/usr/local/bin/edgellm", "run", "tiny", "-n", "4", "--temp", "0", "--json", "-")
    if done.stderr.startswith(b"unshare: unshare failed"):
        arm.missing("this container may not make network namespaces")
    assert done.returncode == 0, done.stderr
    assert b'"generated": 4' in done.stdout
    done = inside(flashed, "/usr/local/bin/edgellm", "ls")
    assert b"tiny" in done.stdout


def test_the_device_answers_over_ctypes(flashed: Path) -> None:
    if not (flashed / "opt/edgellm/current/site/edgellm/_edgellm_table.py").is_file():
        arm.missing("the wheel was made before edgellm had a binding over ctypes: build it again")
    question = ("/usr/local/bin/edgellm", "run", "tiny", "-n", "4", "--temp", "0", "--json", "-")
    by_ctypes, by_cffi = inside(flashed, *question, EDGELLM_FFI="ctypes"), inside(flashed, *question)
    assert by_ctypes.returncode == 0, by_ctypes.stderr
    assert json.loads(by_ctypes.stdout)["text"] == json.loads(by_cffi.stdout)["text"]


def test_verify_and_units(flashed: Path) -> None:
    assert edgellm("flash", "--verify", flashed).returncode == 0
    assert (flashed / "etc/systemd/system/sockets.target.wants/edgellm.socket").is_symlink()


def test_a_broken_wheel_is_rolled_back(flashed: Path, tmp_path: Path) -> None:
    """The library is for the right processor, but does not load: only running it can tell."""
    import zipfile

    good = arm.wheel(tmp_path)
    bad = tmp_path / "bad" / good.name
    bad.parent.mkdir()
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
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


def test_c_example_on_arm(flashed: Path, tmp_path: Path) -> None:
    sysroot = Path("/usr/aarch64-linux-gnu")
    library = next((flashed / "opt/edgellm/current/site/edgellm/lib").glob("libedgellm.so"))
    program = examples.compiled("aarch64-linux-gnu-gcc", library, tmp_path)
    model = tiny_model("llama", tmp_path / "tiny.gguf")
    command = [arm.emulator(), "-L", sysroot, program, model, "Hello", "-n", "4"]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
