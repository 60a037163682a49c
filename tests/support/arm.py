"""What the tests on another processor share: a Debian for ARM to run in, a wheel for it, and how to run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]


def missing(what: str) -> NoReturn:
    """Skip, or fail where everything has to be there."""
    if os.environ.get("EDGELLM_REQUIRE_CROSS", "0") not in ("", "0"):
        pytest.fail(what)
    pytest.skip(what)


def emulator() -> str:
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not found:
        missing("qemu-aarch64 is not installed (apt-get install qemu-user-static)")
    return found


def debian() -> Path:
    """An unpacked Debian for 64-bit ARM with Python; from cross/sysroot.py, which caches it."""
    named = os.environ.get("EDGELLM_SYSROOT_ARM64")
    if named:
        return Path(named)
    cache = Path(os.environ.get("EDGELLM_CACHE") or Path.home() / ".cache" / "edgellm")
    if (cache / "cross" / "sysroot-arm64" / ".packages").is_file():
        return cache / "cross" / "sysroot-arm64"
    script = ROOT / "cross" / "sysroot.py"
    if not script.is_file():
        missing("no Debian for ARM: name one in EDGELLM_SYSROOT_ARM64")
    done = subprocess.run([sys.executable, script, "arm64"], capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"no Debian for ARM: {done.stderr.strip()[-300:]}")
    return Path(done.stdout.strip().splitlines()[-1])


def wheel(folder: Path) -> Path:
    """A wheel for 64-bit ARM: EDGELLM_ARM_WHEEL or the newest in dist, else one with the library of `make test-arm`."""
    named = os.environ.get("EDGELLM_ARM_WHEEL")
    if named:
        return Path(named)
    found = sorted(
        (ROOT / "dist").glob("edgellm-*-py3-none-manylinux*aarch64.whl"), key=lambda path: path.stat().st_mtime
    )
    if found:
        return found[-1]
    return assemble(folder, library())


def library() -> Path:
    """The library by Debian's cross compiler, in the build folder of `make test-arm`; minutes without ccache."""
    if not shutil.which("aarch64-linux-gnu-g++") or not shutil.which("cmake"):
        missing("no wheel for 64-bit ARM in dist ('make wheel TARGET=rpi-aarch64') and no cross compiler of Debian's")
    build = ROOT / "build" / "arm64"
    options = ["-DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake", "-DEDGELLM_IN_SOURCE=OFF"]
    for command in (
        ["cmake", "-S", ".", "-B", build, "-G", "Ninja", *options, f"-DPython_EXECUTABLE={sys.executable}"],
        ["cmake", "--build", build, "--target", "edgellm"],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            missing(f"the library for 64-bit ARM cannot be built: {(done.stderr or done.stdout).strip()[-300:]}")
    return build / "lib" / "libedgellm.so"


def assemble(folder: Path, built: Path) -> Path:
    """A wheel of these sources with another machine's library; Debian's compiler asks for glibc 2.34."""
    from tests.support.wheels import make_wheel

    files = {
        f"edgellm/{path.relative_to(ROOT / 'src' / 'edgellm').as_posix()}": path.read_bytes()
        for path in (ROOT / "src" / "edgellm").rglob("*")
        if path.suffix in (".py", ".toml") and "lib" not in path.parts
    }
    files["edgellm/lib/libedgellm.so"] = built.read_bytes()
    files["edgellm/models/catalog.toml"] = (ROOT / "models" / "catalog.toml").read_bytes()
    needs = ("cffi>=1.15", "click>=8.1", "jinja2>=3.1.6", "platformdirs>=3", "prompt_toolkit>=3.0.36", "rich>=13")
    return make_wheel(folder, "manylinux_2_34_aarch64", files, needs)
