"""
Targets that need what no package registry has: Android's NDK, a Mac for iOS.

Android's wheel is built with the NDK that ANDROID_NDK names, by the NDK's own toolchain file. For iOS `commands` is the
recipe for a Mac; here the sources are compiled to objects, as far as the compiler can tell without Apple's headers.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from common import ROOT, Stop, run, step
from repack import repack
from zigtools import environment, installed


def build_mobile(target: dict[str, Any], out: Path) -> Path:
    """
    The wheel of a target with `needs`.

    Raises:
        Stop: What it needs is not here; the sentence says how to go on.
    """
    if target["needs"] == "ndk":
        return build_android(target, out, android_ndk())
    if sys.platform != "darwin":
        commands = "; ".join(ios_commands(target, Path("dist")))
        raise Stop(f"{target['name']} is linked on a Mac with Xcode; there run: {commands}")
    raise Stop(f"{target['name']} is experimental and not automated; run: {'; '.join(ios_commands(target, out))}")


def android_ndk() -> Path:
    """The folder ANDROID_NDK, if it is an NDK of version 27 or newer."""
    named = os.environ.get("ANDROID_NDK")
    if not named:
        raise Stop(
            "android-arm64 needs Android's NDK, version 27 or newer: unpack one and name its folder in ANDROID_NDK"
        )
    folder = Path(named)
    if not (folder / "build" / "cmake" / "android.toolchain.cmake").is_file():
        raise Stop(f"ANDROID_NDK={named} is no NDK: it has no build/cmake/android.toolchain.cmake")
    return folder


def android_defines(target: dict[str, Any], ndk: Path) -> dict[str, str]:
    """What CMake is told; r27 aligns segments to 16 KiB only when asked to, later ones always do."""
    return {
        "CMAKE_TOOLCHAIN_FILE": str(ndk / "build" / "cmake" / "android.toolchain.cmake"), "CMAKE_BUILD_TYPE": "Release",
        "ANDROID_ABI": "arm64-v8a", "ANDROID_PLATFORM": f"android-{target['api']}", "ANDROID_STL": "c++_static",
        "ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES": "ON", "EDGELLM_IN_SOURCE": "OFF", "EDGELLM_DEVELOPER": "OFF",
    }  # fmt: skip


def build_android(target: dict[str, Any], out: Path, ndk: Path) -> Path:
    """Not run here: there is no NDK in any package registry."""
    tools = installed()
    folder = ROOT / "build" / "cross" / target["name"]
    made = folder / "wheel"
    shutil.rmtree(made, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    settings = [
        f"--config-settings=cmake.define.{name}={value}" for name, value in android_defines(target, ndk).items()
    ]
    with step(f"{target['name']}: compiling"):
        run(
            [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-input", "-v",
             "--disable-pip-version-check", "--wheel-dir", made, f"--config-settings=build-dir={folder / 'cmake'}",
             *settings, ROOT],
            "the build", log=folder / "build.log",
            env=environment(tools, {"EDGELLM_LEAN": "1", "_PYTHON_HOST_PLATFORM": target["host_platform"]}),
        )  # fmt: skip
    [raw] = made.glob("*.whl")
    return repack(raw, out, target, tools)


def ios_commands(target: dict[str, Any], out: Path) -> list[str]:
    """For a Mac: an xcframework of device and simulator for C, then a wheel for Python on iOS (PEP 730)."""
    slices = {"iphoneos": "build/ios", "iphonesimulator": "build/ios-simulator"}
    commands = []
    for sdk, folder in slices.items():
        commands += [
            f"cmake -S . -B {folder} -G Xcode -DCMAKE_SYSTEM_NAME=iOS -DCMAKE_OSX_SYSROOT={sdk} "
            f"-DCMAKE_OSX_ARCHITECTURES=arm64 -DCMAKE_OSX_DEPLOYMENT_TARGET={target['min_os']} -DEDGELLM_TENSORS=OFF",
            f"cmake --build {folder} --config Release --target edgellm",
        ]
    libraries = " ".join(
        f"-library {folder}/lib/Release/libedgellm.dylib -headers include" for folder in slices.values()
    )
    commands.append(f"xcodebuild -create-xcframework {libraries} -output {out}/edgellm.xcframework")
    commands.append(f"EDGELLM_LEAN=1 python3 -m cibuildwheel --platform ios --archs arm64_iphoneos --output-dir {out}")
    return commands
