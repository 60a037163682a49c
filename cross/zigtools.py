"""The tools of a build, installed by name into the cache: zig, CMake, Ninja, scikit-build-core, cffi."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import HERE, ROOT, Stop, cache, need_space, pins, run, step, whole, write_whole

SIZE_MB = 900
BUILD_MB = 600  # object files


def installed() -> Path:
    """
    The folder with the packages of targets.toml's [tools], filled on first use.

    Raises:
        Stop: pip or the package index cannot be reached, or there is too little room.
    """
    wanted = [f"{name}=={version}" for name, version in pins().items()]
    folder = cache() / f"tools-{pins()['ziglang']}"
    mark = f"{sys.version_info[:2]} {' '.join(wanted)}"
    if (folder / ".packages").is_file() and (folder / ".packages").read_text() == mark:
        return folder
    need_space(cache(), SIZE_MB)
    if os.environ.get("EDGELLM_OFFLINE", "0") not in ("", "0"):
        raise Stop(f"{wanted[0]} is not in {cache()} and EDGELLM_OFFLINE forbids fetching it: unset EDGELLM_OFFLINE")
    with step(f"fetching {', '.join(wanted)} (130 MB)"), whole(folder) as part:
        run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
             "--retries", "2", "--target", part, *wanted],
            "pip, which fetches the compiler,", env={**os.environ, "TMPDIR": str(part)},  # /tmp may be a small one
        )  # fmt: skip
        (part / ".packages").write_text(mark)
    return folder


def environment(tools: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What programs of a build see: the tools first, zig's cache in ours, no flags and compilers of the caller's."""
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED}
    return kept | {
        "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(tools),
        "ZIG_GLOBAL_CACHE_DIR": str(cache() / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(cache() / "zig"),
        "PYTHONDONTWRITEBYTECODE": "1",
        # The programs below are named after a target and its flags, so their text is all that a result depends on.
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_DIR": os.environ.get("CCACHE_DIR", str(cache() / "ccache")),
        **(more or {}),
    }


DROPPED = {
    "CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_ARGS", "CMAKE_GENERATOR", "CMAKE_TOOLCHAIN_FILE",
    "SKBUILD_CMAKE_ARGS", "PYTHONHOME", "PYTHONPATH", "SOURCE_DATE_EPOCH", "_PYTHON_HOST_PLATFORM", "MAKEFLAGS",
}  # fmt: skip


def wrappers(folder: Path, tools: Path, target: Mapping[str, Any], triple: str) -> Path:
    """
    The four programs that CMake wants, for one target, in *folder*.

    They are called clang so that ccache knows what they are. When they change, the build folder beside them goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    zig = tools / "ziglang" / "zig"
    python = shutil.which("python3") or sys.executable
    text = (HERE / "zigcc.py").read_bytes()
    # A copy beside the compiler: were the checkout's own path in these programs, ccache would know no other checkout.
    translator = cache() / f"zigcc-{hashlib.sha256(text).hexdigest()[:12]}.py"
    if not translator.is_file():
        write_whole(translator, text)
    head = f"#!/bin/sh\n# zig {pins()['ziglang']}\n"
    for name, language in (("clang", "cc"), ("clang++", "c++")):
        command = f'exec "{python}" -S -E "{translator}" "{zig}" {language} {triple} {target["cpu"]} "$@"\n'
        _program(folder / name, head + command)
    for name in ("ar", "ranlib"):
        _program(folder / name, f'{head}exec "{zig}" {name} "$@"\n')
    return folder


def build_folder(target: Mapping[str, Any]) -> Path:
    """
    Where *target* is compiled; made if need be.

    Raises:
        Stop: It cannot be made, or there is too little room.
    """
    folder = ROOT / "build" / "cross" / str(target["name"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(
            f"{folder} cannot be made: {error.strerror}; copy the sources to a folder you may write to"
        ) from None
    need_space(folder, BUILD_MB)
    return folder


def compile_wheel(target: Mapping[str, Any], tools: Path, toolchain: Mapping[str, str]) -> Path:
    """
    The wheel as pip makes it, before repack.py.

    Args:
        target: What it is for.
        tools: Where `installed` put them.
        toolchain: What CMake is told of the compiler.

    Raises:
        Stop: The build found a fault; where its log lies is said.
    """
    folder = build_folder(target)
    made = folder / "wheel"
    shutil.rmtree(made, ignore_errors=True)
    defines = {**toolchain, "EDGELLM_IN_SOURCE": "OFF", "EDGELLM_DEVELOPER": "OFF"}
    with step(f"{target['name']}: compiling"):
        run(
            [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-input", "-v",
             "--disable-pip-version-check", "--wheel-dir", made, f"--config-settings=build-dir={folder / 'cmake'}",
             *(f"--config-settings=cmake.define.{name}={value}" for name, value in defines.items()), ROOT],
            "the build", log=folder / "build.log",
            env=environment(tools, {"EDGELLM_LEAN": "1", "_PYTHON_HOST_PLATFORM": target["host_platform"]}),
        )  # fmt: skip
    [raw] = made.glob("*.whl")
    return raw


def _program(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        shutil.rmtree(path.parents[1] / "cmake", ignore_errors=True)  # object files of other flags
        path.write_text(text)
        path.chmod(0o755)
