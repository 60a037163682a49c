"""
Proofs by C programs, on every processor of a target.

    test_base, test_kernels    the very object files of the wheel: the kernels meant for a processor against plain C
    logits                     the wheel's own library: a model of every weight type has the recorded bits
    chat                       examples/c/chat.c with it: an answer is streamed, the process ends well
    products                   no product of the musl targets takes more instructions than stored (icount/kernels.py)

Where no C library for the processor can be had (ARMv6), all of them are static programs of the same sources, and the
wheel's own library runs on a newer processor. Targets that cannot be emulated link the example, and it is said that
nothing was run.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from build import toolchain
from common import ROOT, Stop, run, step
from emulate import NO_WINE, Emulator, wine
from icount import kernels as counts
from icount.count import emulator as emulator_with_plugins
from icount.count import plugin
from proofs import FIXTURE, Job, Proofs
from zigtools import environment, installed, wrappers

TESTS = ["test_base", "test_kernels"]
PROGRAMS = [*TESTS, "print_logits", "chat"]
LOGITS = "f7234b46d3011898"  # build/dev/lib/print_logits 1 tests/data/cross/mixed.gguf
CSRC = ["", *(f"/{name}" for name in ("api", "engine", "models", "cpu", "kernels", "base"))]


def prove_c(wheel: Path, target: Mapping[str, Any], proofs: Proofs, *, quick: bool = False) -> None:
    """Compile the programs for *target* and run them, as far as that can be done here; *quick* as in prove.py."""
    with tempfile.TemporaryDirectory(prefix="edgellm-prove-") as name:
        folder = Path(name)
        with step(f"{target['name']}: C programs"):
            programs = link_programs(wheel, target, folder) if loads(target) else static_programs(target)
        why = target["why"] if target["proof"] == "none" else NO_WINE if lacks_wine(target) else ""
        if why:
            proofs.note("chat", "built", "examples/c/chat.c links with the wheel's library")
            proofs.note("run", "not run", why)
            return
        if "test_kernels" not in programs:
            proofs.note("test_kernels", "not run", "no object files are here: build the target, then prove its wheel")
        counter = programs.pop("count_kernels", None)
        with step(f"{target['name']}: C proofs"):
            jobs = products(target, proofs, counter) if counter else []
            jobs += on_processors(target, Emulator(target, folder), programs, quick)
            if "library_on" in target:
                newer = {**target, **target["library_on"]}
                programs = link_programs(wheel, newer, folder)
                programs = {name: programs[name] for name in ("print_logits", "chat")}
                jobs += on_processors(newer, Emulator(newer, folder), programs, quick)
            proofs.make(jobs)


def loads(target: Mapping[str, Any]) -> bool:
    """There is a C library to load the wheel's library with, or nothing is run."""
    return "sysroot" in target or target.get("emulator", "wine") == "wine"


def lacks_wine(target: Mapping[str, Any]) -> bool:
    """Wine is wanted, and is not here."""
    return target.get("emulator") == "wine" and not wine()


def on_processors(
    target: Mapping[str, Any], emulator: Emulator, programs: Mapping[str, Path], quick: bool
) -> list[Job]:
    """All programs on all processors; where that is this machine, the logits with slower kernels as well."""
    jobs, seen = list[Job](), set[str]()
    first = {"bits": "" if target.get("own_bits") else LOGITS}

    def run(name: str, cpu: str, kernels: str, disable: str) -> tuple[str, str]:
        arguments: dict[str, list[str | Path]] = {
            "test_kernels": [] if kernels == "all" else [kernels],
            "print_logits": ["1", FIXTURE],
            "chat": [FIXTURE, "Hello", "-n", "8"],
        }
        done = emulator.run(programs[name], *arguments.get(name, []), cpu=cpu, disable=disable)
        if name == "print_logits":
            first["bits"] = first["bits"] or done.stdout.strip().rpartition(" ")[2]
        fault, detail = judge(name, kernels, done, first["bits"])
        return fault, f"{detail} without {disable}" if disable else detail

    for cpu, kernels in target["cpus"].items():
        for name in programs:
            if name == "test_kernels" and quick and kernels in seen:
                continue
            for disable in ["", "avx512", "avx2"] if (kernels, name) == ("all", "print_logits") else [""]:
                check = {"print_logits": "logits"}.get(name, name)
                jobs.append(Job(check, cpu, functools.partial(run, name, cpu, kernels, disable)))
        seen.add(kernels)
    return jobs


def judge(name: str, kernels: str, done: subprocess.CompletedProcess[str], expected: str) -> tuple[str, str]:
    """What is wrong with a program's end and words, empty when nothing is; and what it has shown."""
    fault, detail = "", ""
    if name == "test_kernels":
        detail = f"{'all variants of this machine' if kernels == 'all' else kernels} against plain C"
        fault = f"{kernels} is not on this CPU" if kernels != "all" and "not on this CPU" in done.stdout else ""
    elif name == "print_logits":
        detail = done.stdout.strip().rpartition(" ")[2]
        fault = "" if detail == expected else f"the logits' bits are {detail}, not {expected}"
    elif name == "chat":
        detail = f"examples/c/chat.c streamed {len(done.stdout.strip())} characters"
        fault = "" if done.stdout.strip() else "no answer"
    return (f"exit code {done.returncode}: {done.stderr.strip()[-200:]}" if done.returncode else fault), detail


def link_programs(wheel: Path, target: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """
    The programs in *folder*, beside the wheel's own libraries.

    The tests of inner functions take the object files that the build left behind; they are missing when a wheel from
    elsewhere is proven, and the target was never built here.
    """
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.startswith("edgellm/lib/")]
        for name in libraries:
            (folder / Path(name).name).write_bytes(archive.read(name))
    [library] = (folder / Path(name).name for name in libraries if "/libedgellm." in name)
    made = ROOT / "build" / "cross" / target["name"]
    objects = sorted(p for p in (made / "cmake" / "CMakeFiles").rglob("*.o*") if of_tests(p))
    sources = {"chat": ROOT / "examples" / "c" / "chat.c", "print_logits": ROOT / "tests" / "c" / "print_logits.c"}
    if target["proof"] == "none":
        del sources["print_logits"]
    elif objects:
        names = TESTS[1:] if target["system"] == "Windows" else TESTS  # test_base makes files as POSIX has them
        sources |= {name: ROOT / "tests" / "c" / f"{name}.c" for name in names}
        if counted(target):
            sources["count_kernels"] = ROOT / "tests" / "c" / "count_kernels.c"
    tools = installed()
    compiler = wrappers(made / "tools", tools, target, target["triple"]) / "clang"
    suffix = ".exe" if target["system"] == "Windows" else ""
    threads = [] if target["system"] == "Windows" else ["-lm", "-lpthread"]
    for name, source in sources.items():
        parts: list[str | Path] = [*(objects if name in TESTS else []), library]
        if name == "count_kernels":  # static, with the wheel's ggml: the plugin of qemu starts with the program
            ggml = made / "cmake"
            [include] = ggml.glob("ggml-*/*/ggml/include")
            parts = [
                f"-I{include}",
                *objects,
                *ggml.glob("libggml_cpu_*.a"),
                ggml / "libggml_base.a",
                "-lc++",
                "-static",
            ]
        run(
            [compiler, "-std=c11", "-O2", "-D_GNU_SOURCE", f"-I{ROOT}/include",
             *(f"-I{ROOT}/csrc{path}" for path in CSRC), source, *parts, *threads, "-o", folder / f"{name}{suffix}"],
            f"compiling {name}", env=environment(tools), quiet=True,
        )  # fmt: skip
    return {name: folder / f"{name}{suffix}" for name in [*PROGRAMS, "count_kernels"] if name in sources}


def counted(target: Mapping[str, Any]) -> list[str]:
    """Processors of *target* whose products have budgets."""
    return [cpu for cpu in target.get("cpus", {}) if cpu in counts.CPUS and counts.CPUS[cpu].target == target["name"]]


def products(target: Mapping[str, Any], proofs: Proofs, program: Path) -> list[Job]:
    """No product takes more instructions than stored."""
    qemu = emulator_with_plugins(target)
    if not qemu:
        proofs.note("products", "not run", f"{target['emulator']} (Debian's qemu-user) is not installed")
        return []
    plugin()  # compiled before several want it

    def compared(cpu: str) -> tuple[str, str]:
        try:
            found = counts.count(program, qemu, cpu, counts.CPUS[cpu].isa)
        except Stop as error:
            return str(error), ""
        return counts.excess(cpu, found), "instructions as stored"

    return [Job("products", cpu, functools.partial(compared, cpu)) for cpu in counted(target)]


def of_tests(path: Path) -> bool:
    """The kernels' object files and those of csrc/base."""
    return path.suffix in (".o", ".obj") and (
        "edgellm_kernels.dir" in path.parts or ("edgellm_objects.dir" in path.parts and path.parent.name == "base")
    )


def static_programs(target: Mapping[str, Any]) -> dict[str, Path]:
    """Static programs of the same sources."""
    folder = compile_programs(target, PROGRAMS)
    return {name: folder / name for name in PROGRAMS}


def compile_programs(target: Mapping[str, Any], names: Sequence[str], *, suffix: str = "c", flags: str = "") -> Path:
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
