"""
Whole models on emulated ARM processors against this machine: the same bits, or a line that says where not.

    python -m tools.arm_logits build/dev/lib/print_logits build/arm64/lib/print_logits [MODEL...]

Tiny models of every family and of every weight type with a kernel of ours; the fixtures beside the project, where they
are; and the MODELs. What has the same bits as on x86-64 passes every test of accuracy that passes there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.reference import ARCHITECTURES
from tests.support.tiny import tiny_model

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT.parent / "shared" / "data" / "archs"
CPUS = {"cortex-a53": "neon", "cortex-a76": "dotprod", "max,sve=off": "i8mm"}
TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs")
WIDE = {"n_embd": 256, "n_ff": 256, "head_size": 64, "n_head": 4}


def models(folder: Path) -> list[Path]:
    """Tiny models, then the fixtures of the supported families."""
    made = [tiny_model(folder / f"{arch}.gguf", arch) for arch in ARCHITECTURES]
    made += [tiny_model(folder / f"llama-{kind}.gguf", "llama", dtype=f"random {kind}", **WIDE) for kind in TYPES]
    found = [FIXTURES / f"{name}.gguf" for name in ("llama-dense", "llama-moe", "mistral3-dense", "gemma3-dense")]
    if not all(path.exists() for path in found):
        print("the fixtures beside the project are not here: left out", file=sys.stderr)
    return made + [path for path in found if path.exists()]


def lines(command: list[str], paths: list[Path], threads: int) -> list[str]:
    """What the program prints, a line per model."""
    done = subprocess.run(
        [*command, str(threads), *map(str, paths)], capture_output=True, text=True, check=False, timeout=1200
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr[-1000:]}")
    return done.stdout.splitlines()


def main(here: str, there: str, *more: str) -> None:
    """Compare, and print one line per processor."""
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not emulator:
        raise SystemExit("qemu-user is not installed: apt-get install qemu-user-static")
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = models(Path(folder)) + [Path(path) for path in more]
        expected = lines([here], paths, 2)
        for cpu, isa in CPUS.items():
            command = [emulator, "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu, there]
            seen = lines(command, paths, 1)
            wrong = [a.rpartition(" ")[0] for a, b in zip(expected, seen, strict=True) if a != b]
            differ += len(wrong)
            names = ", ".join(Path(name).stem for name in wrong)
            print(f"{cpu} ({isa}): {len(seen)} models, " + (f"OTHER BITS in {names}" if wrong else "the same bits"))
    raise SystemExit(1 if differ else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
