"""
Proofs for machines whose Python cannot be had here: the same sources as static C programs, on the target's processors.

    test_base, test_kernels    every kernel variant against plain C
    print_logits               the model of every weight type: the same bits on each processor
    count_kernels              no product takes more instructions than stored (icount/kernels.py)

The wheel's library differs from them in how it is linked, not in what is compiled; check.py looks at that.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from build import toolchain
from common import ROOT, Stop, run, step
from icount import kernels
from icount.count import emulator as emulator_with_plugins
from prove import FIXTURE, TIMEOUT, Proofs, tools
from zigtools import environment, installed, wrappers

PROGRAMS = ["test_base", "test_kernels", "print_logits", "count_kernels"]


def prove_c(target: Mapping[str, Any]) -> list[dict[str, str]]:
    """Build the programs and run them on each processor of *target*."""
    emulator, proofs = tools(target), Proofs(target)
    with step(f"{target['name']}: C programs"):
        programs = compile_programs(target)
    first = ""
    with step(f"{target['name']}: proofs"):
        for cpu, kernels in target["cpus"].items():
            for name, arguments in (("test_base", []), ("test_kernels", [kernels])):
                done = emulate(emulator, cpu, programs / name, *arguments)
                fault = f"exit code {done.returncode}: {done.stderr.strip()[-200:]}" if done.returncode else ""
                proofs.add(name, cpu, fault, " ".join([*arguments, "static program"]))
            done = emulate(emulator, cpu, programs / "print_logits", "1", str(FIXTURE))
            line = done.stdout.strip().rpartition(" ")[2]
            first = first or line
            fault = f"exit code {done.returncode}: {done.stderr.strip()[-200:]}" if done.returncode else ""
            proofs.add(
                "logits", cpu, fault or ("" if line == first else "other bits than on the first processor"), line
            )
            if cpu in kernels.CPUS and (qemu := emulator_with_plugins(target)):
                proofs.add("products", cpu, too_many(programs / "count_kernels", qemu, cpu), "instructions as stored")
    return proofs.results


def too_many(program: Path, qemu: Path, cpu: str) -> str:
    """Which products take more instructions than they may."""
    try:
        return kernels.excess(cpu, kernels.count(program, qemu, cpu, kernels.CPUS[cpu].isa))
    except Stop as error:
        return str(error)


def emulate(emulator: Path, cpu: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """One program on one processor."""
    try:
        return subprocess.run(
            [str(emulator), "-cpu", cpu, *map(str, command)], capture_output=True, text=True, errors="replace",
            timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], -1, "", f"no end after {TIMEOUT} s")


def compile_programs(
    target: Mapping[str, Any], names: Sequence[str] = PROGRAMS, *, suffix: str = "c", flags: str = ""
) -> Path:
    """The folder with static programs for *target*; with other *flags* in another one, of that *suffix*."""
    tools_folder = installed()
    folder = ROOT / "build" / "cross" / f"{target['name']}-{suffix}"
    programs = wrappers(folder / "tools", tools_folder, target, target["static_triple"])
    defines = toolchain(dict(target), programs) | {
        "EDGELLM_DEVELOPER": "ON", "EDGELLM_IN_SOURCE": "OFF", "EDGELLM_TENSORS": "OFF",
        "CMAKE_EXE_LINKER_FLAGS": "-static", "Python_EXECUTABLE": sys.executable,
        "CMAKE_C_FLAGS": flags, "CMAKE_CXX_FLAGS": flags,
    }  # fmt: skip
    settings = [f"-D{name}={value}" for name, value in defines.items()]
    around = environment(tools_folder)
    build = folder / "cmake"
    run(["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *settings], "CMake", log=folder / "cmake.log", env=around)
    run(["ninja", "-C", build, *names], "the build", log=folder / "build.log", env=around)
    return build / "lib"
