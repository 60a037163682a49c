"""
Targets that need what no package registry has: Android's NDK, a Mac for iOS.

Android's wheel is built with the NDK that ANDROID_NDK names, by the NDK's own toolchain file; `ios_commands` is the
recipe for a Mac. What can be shown without them is the gate: the sources compile for the target. zig has Darwin's
headers, which iOS shares, so all of edgellm and ggml become objects for iOS 16.4. It has none of Android's: musl's
stand in, which tells whether the C sources (ours and ggml's) compile with __ANDROID__ set and no glibc, and no more.
Objects of a gate are looked at and never shipped.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from binaries import Broken, read
from common import ROOT, Needs, Stop, run, step
from repack import repack
from zigtools import compile_wheel, environment, installed, wrappers

# Folders of zig's lib/libc/include, in the order in which they are searched: the C library's, then the kernel's.
HEADERS = {
    "darwin": ["any-darwin-any", "any-darwin-any"],
    "musl": ["aarch64-linux-musl", "generic-musl", "aarch64-linux-any", "any-linux-any"],
}


def gate(target: dict[str, Any]) -> str:
    """
    Compile the sources to objects for *target* and look at each.

    Returns:
        What was compiled, for the table of platforms.

    Raises:
        Stop: A file does not compile, or an object is not what it should be.
    """
    from build import toolchain

    tools, wanted = installed(), target["gate"]
    folder = ROOT / "build" / "cross" / f"{target['name']}-gate"
    programs = wrappers(folder / "tools", tools, {"cpu": "generic"}, wanted["triple"])
    first, second, *kernel = (
        tools / "ziglang" / "lib" / "libc" / "include" / name for name in HEADERS[wanted["headers"]]
    )
    (folder / "libc.txt").write_text(
        f"include_dir={first}\nsys_include_dir={second}\ncrt_dir={first}\nmsvc_lib_dir=\nkernel32_lib_dir=\n"
        f"gcc_dir={first}\ndarwin_sdk_dir={first}\n"
    )
    defines = toolchain({**target, "system": wanted["system"]}, programs) | {
        "EDGELLM_IN_SOURCE": "OFF", "EDGELLM_TENSORS": "OFF", "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY",
        "CMAKE_C_FLAGS": " ".join(f"-isystem {path}" for path in kernel), "Python_EXECUTABLE": sys.executable,
    }  # fmt: skip
    around = environment(tools, {"ZIG_LIBC": str(folder / "libc.txt")})
    build = folder / "cmake"
    with step(f"{target['name']}: compiling to objects"):
        settings = [f"-D{name}={value}" for name, value in defines.items()]
        run(["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *settings], "CMake", log=folder / "cmake.log", env=around)
        listed = run(["ninja", "-C", build, "-t", "targets", "all"], "ninja", env=around, quiet=True)
        rules = dict(line.split(": ", 1) for line in listed.splitlines() if ": " in line)
        compilers = ("C_COMPILER", "CXX_COMPILER")[: 1 if wanted["headers"] == "musl" else 2]
        objects = [name for name, rule in rules.items() if name.endswith(".o") and rule.startswith(compilers)]
        run(["ninja", "-C", build, *objects], "the build", log=folder / "build.log", env=around)
    for name in objects:
        if fault := unlike((build / name).read_bytes(), target):
            raise Stop(f"{target['name']}: {build / name} {fault}")
    return f"{len(objects)} {wanted['what']}"


def unlike(data: bytes, target: dict[str, Any]) -> str:
    """How an object differs from what *target* wants; empty when it does not."""
    try:
        found = read(data)
    except Broken as error:
        return f"is no object: {error}"
    if (found.format, found.machine) != (target["format"], target["machine"]):
        return f"is {found.format} {found.machine}, not {target['format']} {target['machine']}"
    if target["system"] == "iOS" and (found.platform, found.min_os) != ("ios", target["min_os"]):
        return f"is for {found.platform} {found.min_os}, not ios {target['min_os']}"
    return ""


def build_mobile(target: dict[str, Any], out: Path) -> Path:
    """
    The wheel of a target with `needs`.

    Raises:
        Needs: What it needs is not here; the sentence says how to go on.
    """
    if target["needs"] == "ndk":
        return build_android(target, out, android_ndk())
    if sys.platform != "darwin":
        commands = "; ".join(ios_commands(target, Path("dist")))
        raise Needs(f"{target['name']} is linked on a Mac with Xcode; there run: {commands}")
    raise Needs(f"{target['name']} is experimental and not automated; run: {'; '.join(ios_commands(target, out))}")


def android_ndk() -> Path:
    """The folder ANDROID_NDK, if it is an NDK of version 27 or newer."""
    named = os.environ.get("ANDROID_NDK")
    if not named:
        raise Needs(
            "android-arm64 needs Android's NDK, version 27 or newer: unpack one and name its folder in ANDROID_NDK"
        )
    folder = Path(named)
    if not (folder / "build" / "cmake" / "android.toolchain.cmake").is_file():
        raise Needs(f"ANDROID_NDK={named} is no NDK: it has no build/cmake/android.toolchain.cmake")
    return folder


def android_defines(target: dict[str, Any], ndk: Path) -> dict[str, str]:
    """What CMake is told; r27 aligns segments to 16 KiB only when asked to, later ones always do."""
    return {
        "CMAKE_TOOLCHAIN_FILE": str(ndk / "build" / "cmake" / "android.toolchain.cmake"), "CMAKE_BUILD_TYPE": "Release",
        "ANDROID_ABI": "arm64-v8a", "ANDROID_PLATFORM": f"android-{target['api']}", "ANDROID_STL": "c++_static",
        "ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES": "ON",
    }  # fmt: skip


def build_android(target: dict[str, Any], out: Path, ndk: Path) -> Path:
    """Not run here: there is no NDK in any package registry."""
    tools = installed()
    return repack(compile_wheel(target, tools, android_defines(target, ndk)), out, target, tools)


def ios_commands(target: dict[str, Any], out: Path) -> list[str]:
    """For a Mac: an xcframework of device and simulator for C, then a wheel for Python on iOS (PEP 730)."""
    archs = target["host_platform"].removeprefix(f"ios-{target['min_os']}-").replace("-", "_")
    return [
        "sh examples/ios/xcframework.sh",
        f"CIBW_ENVIRONMENT='EDGELLM_LEAN=1 IPHONEOS_DEPLOYMENT_TARGET={target['min_os']}' CIBW_BUILD=cp314-* "
        f"python3 -m cibuildwheel --platform ios --archs {archs} --output-dir {out}",
    ]
