"""
Instructions under emulation, exact and the same every time: what stands in for seconds on processors that are not here.

    python cross/icount/count.py TARGET WHEEL [--write]     compares with budgets.json, or renews it

import   of edgellm, more than starting Python takes; both have bytecode, as pip and Debian leave it on a device
prefill  per token of a prompt, of tests/data/cross/mixed.gguf (0.5 million weights, all types)
decode   per generated token of the same

Printed, but no budgets: prefill and decode of the same wheel with ggml's backend (EDGELLM_CPU_BACKEND=ggml), which is
compiled once, for the target's baseline.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common import Stop, cache, run, say, target_named  # noqa: E402
from zigtools import environment, installed  # noqa: E402

if TYPE_CHECKING:
    from proofs import Job
    from prove import Machine

BUDGETS = HERE / "budgets.json"
TOLERANCE = 0.01
TOLERANCE_IMPORT = 0.10  # it looks for files: long paths take more
IMPORT_MAX = 120_000_000  # 80 ms on a Cortex-A72 of 1.5 GHz at one instruction a cycle: 0.080 * 1.5e9


def plugin() -> Path:
    """The counting plugin, compiled once with the pinned compiler."""
    tools = installed()
    path = cache() / "icount.so"
    source = HERE / "plugin.c"
    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        zig = tools / "ziglang" / "zig"
        words: list[str | Path] = [
            "cc",
            "-target",
            "x86_64-linux-gnu.2.28",
            "-O2",
            "-fPIC",
            "-shared",
            "-Wl,-z,lazy",
            "-o",
            path,
            source,
        ]
        run([zig, *words], "compiling the counting plugin", env=environment(tools), quiet=True)
    return path


def emulator(target: Mapping[str, Any]) -> Path | None:
    """The dynamic qemu-user, which takes plugins; Debian's static one does not."""
    found = shutil.which(target["emulator"])
    return Path(found) if found else None


def wanted_emulator(target: Mapping[str, Any]) -> Path:
    """
    The same.

    Raises:
        Stop: It is not installed.
    """
    found = emulator(target)
    if not found:
        raise Stop(f"{target['emulator']} is not installed: apt-get install qemu-user")
    return found


def count(machine: Machine, qemu: Path, arguments: Sequence[str | Path], paths: Sequence[Path], cpu: str) -> int:
    """
    Instructions of one process.

    Raises:
        Stop: It failed.
    """
    with tempfile.NamedTemporaryFile(prefix="edgellm-icount-") as file:
        options = ["-plugin", f"{plugin()},out={file.name}"]
        done = machine.run(arguments, paths, cpu=cpu, emulator=qemu, options=options)
        text = Path(file.name).read_text().strip()
    if done.returncode or not text:
        raise Stop(f"counting on {cpu} failed: {done.stderr.strip()[-200:]}")
    return int(text.split()[-1])


def per_token(machine: Machine, qemu: Path, paths: Sequence[Path], cpu: str, *backend: str) -> dict[str, int]:
    """Prefill and decode, by ours or another *backend*."""
    from proofs import FIXTURE

    def generate(n_prompt: int, n_tokens: int) -> int:
        words: list[str | Path] = [HERE / "on_count.py", FIXTURE, str(n_prompt), str(n_tokens), *backend]
        return count(machine, qemu, words, paths, cpu)

    base = generate(33, 1)
    return {"prefill": (generate(97, 1) - base) // 64, "decode": (generate(33, 33) - base) // 32}


def measure(machine: Machine, qemu: Path, paths: Sequence[Path], cpu: str) -> dict[str, int]:
    """The three figures."""
    nothing = count(machine, qemu, ["-c", "pass"], paths, cpu)
    importing = count(machine, qemu, ["-c", "import edgellm"], paths, cpu) - nothing
    return {"import": importing, **per_token(machine, qemu, paths, cpu)}


def budgets(machine: Machine, paths: Sequence[Path]) -> list[Job]:
    """A comparison for each processor that has a budget."""
    from proofs import Job

    known: dict[str, dict[str, int]] = json.loads(BUDGETS.read_text()).get(machine.target["name"], {})
    qemu = emulator(machine.target)
    if not qemu:
        return []
    plugin()

    def compared(cpu: str, budget: dict[str, int]) -> tuple[str, str]:
        found = measure(machine, qemu, paths, cpu)
        faults = [
            f"{name} takes {found[name]}, stored {n}"
            for name, n in budget.items()
            if found[name] > n * (1 + (TOLERANCE_IMPORT if name == "import" else TOLERANCE))
            and (name != "import" or machine.compiled)
        ]
        if found["import"] > IMPORT_MAX:
            faults.append(f"import takes {found['import']} instructions, more than {IMPORT_MAX}")
        return "; ".join(faults), ", ".join(f"{name} {n}" for name, n in found.items())

    return [Job("instructions", cpu, functools.partial(compared, cpu, budget)) for cpu, budget in known.items()]


def main() -> int:
    """Print what is counted, or store it."""
    from prove import Machine, install

    target, wheel = target_named(sys.argv[1]), Path(sys.argv[2]).resolve()
    qemu = wanted_emulator(target)
    machine = Machine(target)
    pip, wheels, site = machine.dependencies(wheel)
    with tempfile.TemporaryDirectory(prefix="edgellm-count-") as folder:
        fault = install(machine, wheel, Path(folder), pip, wheels, site)
        if fault:
            raise Stop(fault)
        paths = [machine.packages(Path(folder)), site]
        found = {cpu: measure(machine, qemu, paths, cpu) for cpu in target["count"]}
        beside = {cpu: per_token(machine, qemu, paths, cpu, "ggml") for cpu in target["count"]}
    print(json.dumps(found, indent=1))
    for cpu, ggmls in beside.items():
        words = [f"{name} {n}, {found[cpu][name] / n:.2f} of it" for name, n in ggmls.items()]
        print(f"ggml on {cpu}: {'; '.join(words)}")
    if "--write" in sys.argv:
        known = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
        BUDGETS.write_text(json.dumps({**known, target["name"]: found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except Stop as error:
        say(f"cross/icount/count.py: {error}")
        raise SystemExit(2) from None
