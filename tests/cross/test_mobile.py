"""Targets for which a tool is missing here: what is said, recipes as dry runs, how their files are looked at."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import build
import check
import emulate
import mobile
import platforms
import prove_c
import repack
import zigtools
from common import Needs, Stop, targets
from proofs import Proofs
from tests.support.wheels import make_wheel

ROOT = Path(__file__).parents[2]
TOOLS = ("cmake", "xcodebuild", "install_name_tool", "dsymutil", "strip", "codesign")


def test_sentence_without_ndk_and_on_no_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_NDK", raising=False)
    with pytest.raises(Needs, match="name its folder in ANDROID_NDK"):
        build.build(targets()["android-arm64"], tmp_path)
    monkeypatch.setenv("ANDROID_NDK", str(tmp_path))
    with pytest.raises(Stop, match="is no NDK"):
        build.build(targets()["android-arm64"], tmp_path)
    if sys.platform != "darwin":
        with pytest.raises(Needs, match="is linked on a Mac with Xcode; there run: sh examples/ios"):
            build.build(targets()["ios-arm64"], tmp_path)


# ---- Android -----------------------------------------------------------------------------------------------


def elf_aarch64(align: int) -> bytes:
    """A shared library for 64-bit ARM that has one segment and nothing else."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 120, 120, align)


@pytest.mark.parametrize(
    ("align", "sentence"), [(16384, ""), (4096, "segments aligned to 4096 bytes, fewer than 16384")]
)
def test_android_dry_run(align: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configure line is read, and the wheel that it would have made is tagged and looked at."""
    target = targets()["android-arm64"]
    ndk = tmp_path / "ndk"
    (ndk / "build" / "cmake").mkdir(parents=True)
    (ndk / "build" / "cmake" / "android.toolchain.cmake").touch()
    monkeypatch.setenv("ANDROID_NDK", str(ndk))
    monkeypatch.setattr(zigtools, "ROOT", tmp_path)
    monkeypatch.setattr(mobile, "installed", lambda: tmp_path)
    lines: list[list[str]] = []

    def pip(command: list[Any], *_: Any, env: dict[str, str], **__: Any) -> str:
        lines.append([str(word) for word in command])
        assert (env["EDGELLM_LEAN"], env["_PYTHON_HOST_PLATFORM"]) == ("1", "android-24-arm64_v8a")
        made = Path(command[command.index("--wheel-dir") + 1])
        made.mkdir()
        make_wheel(made, "linux_aarch64", {"edgellm/lib/libedgellm.so": elf_aarch64(align)})
        return ""

    monkeypatch.setattr(zigtools, "run", pip)
    wheel = build.build(target, tmp_path)
    [line] = lines
    defines = {word.partition("cmake.define.")[2] for word in line if "cmake.define." in word}
    assert defines >= {
        f"CMAKE_TOOLCHAIN_FILE={ndk}/build/cmake/android.toolchain.cmake", "ANDROID_ABI=arm64-v8a",
        "ANDROID_PLATFORM=android-24", "ANDROID_STL=c++_static", "ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES=ON",
    }  # fmt: skip
    found = check.check(wheel, target)
    assert [found[name] for name in ("tags", "record", "machine", "needed")] == [[], [], [], []]
    assert sentence in "".join(found["alignment"])
    assert bool(found["alignment"]) == bool(sentence)


# ---- iOS ---------------------------------------------------------------------------------------------------


def macho_object(platform: int, version: int) -> bytes:
    """An object of 64-bit ARM with nothing but what it is for."""
    command = struct.pack("<6I", 0x32, 24, platform, version << 16 | 4 << 8, 0, 0)
    return struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 1, 1, len(command), 0, 0) + command


def test_objects_are_looked_at() -> None:
    ios, android = targets()["ios-arm64"], targets()["android-arm64"]
    assert mobile.unlike(macho_object(2, 16), ios) == ""
    assert mobile.unlike(macho_object(1, 16), ios) == "is for macos 16.4, not ios 16.4"
    assert mobile.unlike(macho_object(2, 17), ios) == "is for ios 17.4, not ios 16.4"
    assert mobile.unlike(elf_aarch64(1), ios) == "is elf aarch64, not macho arm64"
    assert mobile.unlike(elf_aarch64(1), android) == ""
    assert "is no object" in mobile.unlike(b"text", android)


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_xcframework_dry_run(tmp_path: Path) -> None:
    """The script for a Mac, with programs that only say how they were called."""
    for folder in ("examples/ios", "include"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    tools, said = tmp_path / "tools", tmp_path / "said"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).write_text(
            f'#!/bin/sh\necho {name} "$@" >>{said}\n'
            '[ "$1" != --build ] || { mkdir -p "$2/lib"; echo library >"$2/lib/libedgellm.dylib"; }\n'
        )
        (tools / name).chmod(0o755)
    command = mobile.ios_commands(targets()["ios-arm64"], Path("dist"))[0].split()
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PATH": f"{tools}:/usr/bin:/bin"}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = said.read_text().splitlines()
    configured = [line for line in lines if line.startswith("cmake -S")]
    assert [
        f"-DCMAKE_OSX_SYSROOT={sdk}" in line
        for sdk, line in zip(("iphoneos", "iphonesimulator"), configured, strict=True)
    ]
    assert all(f"-DCMAKE_OSX_DEPLOYMENT_TARGET={targets()['ios-arm64']['min_os']}" in line for line in configured)
    assert lines[-1].startswith("xcodebuild -create-xcframework")
    assert lines[-1].count("-framework ") == lines[-1].count("-debug-symbols ") == 2
    for sdk, word in (("iphoneos", "iPhoneOS"), ("iphonesimulator", "iPhoneSimulator")):
        framework = tmp_path / "build" / "ios" / sdk / "edgellm.framework"
        files = {str(path.relative_to(framework)) for path in framework.rglob("*") if path.is_file()}
        assert files == {"edgellm", "Headers/edgellm.h", "Modules/module.modulemap", "Info.plist"}
        assert f"<string>{word}</string>" in (framework / "Info.plist").read_text()


def test_ios_wheel_recipe() -> None:
    wheel = mobile.ios_commands(targets()["ios-arm64"], Path("dist"))[1]
    assert "EDGELLM_LEAN=1" in wheel
    assert wheel.endswith("-m cibuildwheel --platform ios --archs arm64_iphoneos --output-dir dist")


# ---- what is said of them ----------------------------------------------------------------------------------


def test_all_is_green_without_tools_and_red_without_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages: list[Any] = []
    monkeypatch.setattr(platforms, "write", pages.append)
    only = {"ios-arm64": targets()["ios-arm64"]}
    monkeypatch.setattr(build, "targets", lambda: only)
    monkeypatch.setattr(mobile, "gate", lambda target: "7 files compile")
    monkeypatch.setattr(mobile.sys, "platform", "linux")
    assert build.build_all(tmp_path) == 0
    assert (
        "| not built | `ios_16_4_arm64_iphoneos` |  | 7 files compile; needs a Mac with Xcode |"
        in capsys.readouterr().out
    )

    def broken(target: dict[str, Any]) -> str:
        raise Stop("a.c: error")

    monkeypatch.setattr(mobile, "gate", broken)
    assert build.build_all(tmp_path) == 1


def test_windows_without_wine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs are linked, and it is said that they were not run."""
    target = targets()["windows-x64"]
    monkeypatch.setattr(emulate.shutil, "which", lambda name: None)
    monkeypatch.setattr(prove_c, "link_programs", lambda *_: {})
    proofs = Proofs(target)
    prove_c.prove_c(tmp_path / "x.whl", target, proofs)
    assert [one["result"] for one in proofs.results] == ["built", "not run"]
    assert platforms.proofs(target, tmp_path, proofs.results) == "not run: wine is not installed"
    with pytest.raises(Stop, match="wine is not installed"):
        emulate.Emulator(target, tmp_path)


@pytest.mark.parametrize(
    ("name", "kernels", "said", "code", "fault"),
    [
        ("test_kernels", "i8mm", "i8mm: same bits as ref", 0, ""),
        ("test_kernels", "i8mm", "i8mm: not on this CPU", 0, "i8mm is not on this CPU"),
        ("test_kernels", "all", "avx512: not on this CPU", 0, ""),
        ("test_kernels", "neon", "", -4, "exit code -4: told"),
        ("print_logits", "neon", "mixed.gguf 12ab", 0, ""),
        ("print_logits", "neon", "mixed.gguf 12ac", 0, "the logits' bits are 12ac, not 12ab"),
        ("chat", "neon", "word", 0, ""),
        ("chat", "neon", "\n", 0, "no answer"),
        ("chat", "neon", "word", 139, "exit code 139: told"),
    ],
)
def test_judgement_of_programs(name: str, kernels: str, said: str, code: int, fault: str) -> None:
    assert prove_c.judge(name, kernels, subprocess.CompletedProcess([], code, said, "told"), "12ab")[0] == fault


def test_repacked_name(tmp_path: Path) -> None:
    raw = make_wheel(tmp_path, "linux_aarch64")
    made = repack.repack(raw, tmp_path, targets()["android-arm64"], tmp_path)
    assert made.name.endswith("-py3-none-android_24_arm64_v8a.whl")
