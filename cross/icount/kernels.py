"""
Instructions per product of a weight with an activation: edgellm's kernels beside ggml's, on each processor.

    python cross/icount/kernels.py [--write] [CPU...]

Both are static programs of the same compiler (tests/c/count_kernels.c), run under emulation with the counting plugin:
a matrix times 1, 8 and 64 rows of activations, whose quantization counts. ggml is compiled for the processor itself,
with contraction of multiplications and additions, and is counted on weights as they lie in the file and, where it has
them for a type, on its repacked ones; edgellm chooses its kernels at run time. --write stores edgellm's counts in
kernel_budgets.json, which proofs compare with 1 % tolerance (excess), and renews docs/instructions.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common import ROOT, Stop, run, say, step, target_named  # noqa: E402
from icount.count import TOLERANCE, plugin, wanted_emulator  # noqa: E402

BUDGETS = HERE / "kernel_budgets.json"
TABLE = ROOT / "docs" / "instructions.md"
N_ROWS, K, N_X = 256, 2048, (1, 8, 64)  # a matrix, and how many rows of activations


class Peer(NamedTuple):
    """How a processor is served: the target with static programs, our kernels, ggml's flags."""

    target: str
    isa: str
    march: str
    about: str


CPUS = {
    "cortex-a7": Peer("musl-armv7", "neon", "", "Pi 2, or any Pi with a 32-bit system"),
    "cortex-a53": Peer("musl-aarch64", "neon", "", "Pi 3, Zero 2; Pi 4 has the same kernels"),
    "cortex-a76": Peer("musl-aarch64", "dotprod", "-march=armv8.2-a+dotprod+fp16", "Pi 5"),
    "max,sve=off": Peer("musl-aarch64", "i8mm", "-march=armv8.2-a+dotprod+fp16+i8mm", "Snapdragon X, Apple's chips"),
}
GETPPID = {"aarch64": 173, "arm": 64}  # Linux's numbers: the mark

Counts = dict[str, dict[str, int]]  # of each weight type and number of rows


def programs(cpu: str, *, ggml: bool) -> Path:
    """The compiled count_kernels for *cpu*, with our sources as they ship or ggml's as they suit it best."""
    from prove_c import compile_programs

    peer = CPUS[cpu]
    if not ggml:
        return compile_programs(target_named(peer.target), ["count_kernels"]) / "count_kernels"
    # -Xclang comes last, after our own -ffp-contract=off.
    flags = f"{peer.march} -DGGML_USE_CPU_REPACK -Xclang -ffp-contract=fast".strip()
    suffix = f"ggml-{peer.isa}"
    return compile_programs(target_named(peer.target), ["count_kernels"], suffix=suffix, flags=flags) / "count_kernels"


def count(program: Path, qemu: Path, cpu: str, what: str) -> Counts:
    """
    Instructions of each product: *what* is one of our instruction sets, ggml (repacked weights), or ggml-file.

    Raises:
        Stop: The program failed.
    """
    with tempfile.NamedTemporaryFile(prefix="edgellm-icount-") as file:
        options = f"{plugin()},out={file.name},mark={GETPPID[qemu.name.removeprefix('qemu-')]}"
        words = [qemu, "-cpu", cpu, "-plugin", options, program, what, N_ROWS, K, *N_X]
        said = run([str(word) for word in words], f"counting {what} on {cpu}", quiet=True)
        marks = [int(line) for line in Path(file.name).read_text().split()]
    found: Counts = {}
    for i, line in enumerate(said.splitlines()):
        name, n_x = line.split()
        found.setdefault(name, {})[n_x] = marks[2 * i + 1] - marks[2 * i]
    return found


def excess(cpu: str, counts: Counts) -> str:
    """What takes more than is stored for *cpu*, in words; "" when nothing does."""
    known: Counts = json.loads(BUDGETS.read_text()).get(cpu, {})
    return "; ".join(
        f"{name} with {n_x} rows takes {counts[name][n_x]}, stored {n}"
        for name, stored in known.items()
        for n_x, n in stored.items()
        if counts[name][n_x] > n * (1 + TOLERANCE)
    )


def per_product(counts: Counts, name: str, n_x: int) -> float:
    """Instructions per weight and row of activations."""
    return counts[name][str(n_x)] / (N_ROWS * K * n_x)


def cells(ours: Counts, on_file: Counts, repacked: Counts, name: str) -> list[str]:
    """A row of the table: ours and ggml's on the file's layout, then on repacked weights, per number of rows."""
    found = []
    has_repacked = any(abs(repacked[name][n_x] / n - 1) > TOLERANCE for n_x, n in on_file[name].items())
    for n in N_X:
        own, file, other = (per_product(counts, name, n) for counts in (ours, on_file, repacked))
        found += [f"{own:.3f}", f"{file:.3f}", f"{own / file:.2f}"]
        found += [f"{other:.3f}", f"{own / other:.2f}"] if has_repacked else ["", ""]
    return found


def table(found: Mapping[str, tuple[Counts, Counts, Counts]]) -> str:
    """Ours beside ggml's two for each type and processor, as Markdown."""
    lines = []
    for cpu, (ours, on_file, repacked) in found.items():
        peer = CPUS[cpu]
        heads = [f"{n} row{'s' * (n > 1)}: edgellm | ggml, file | ratio | ggml, repacked | ratio" for n in N_X]
        lines += [
            f"## {cpu}: {peer.isa}", "", f"{peer.about}.", "",
            f"| type | {' | '.join(heads)} |", "| --- |" + " --: |" * (5 * len(N_X)),
        ]  # fmt: skip
        lines += [f"| {name} | {' | '.join(cells(ours, on_file, repacked, name))} |" for name in ours]
        lines.append("")
    return "\n".join(lines)


HEAD = f"""# Instructions per product

There is no ARM machine here to take times on, so instructions are counted under emulation: exact, the same every time,
and no more than a hint of speed. `python cross/icount/kernels.py --write` makes this page: a matrix of {N_ROWS} x {K}
weights times 1, {N_X[1]} and {N_X[2]} rows of activations, quantization of the activations included, one thread,
instructions per weight and row. edgellm chooses its kernels at run time; ggml is compiled for the processor, and stands
here twice: on weights as they lie in the file, as edgellm reads them (`docs/ARCHITECTURE.md`), and where it has them on
repacked ones, a second copy of the weights.

Where edgellm takes more than the repacked kernels. Repacked rows lie in lanes already. With one row of activations and
sdot, a block of four rows costs edgellm three more loads of scales, and four instructions to bring sums into lanes
instead of one zero: 6 of Q4_0's 37. With 8 rows it is the transposition, 16 instructions for Q8_0's block of four
rows, 8 where bytes hold two weights. The order of summation costs nothing: a multiplication and an addition in one per
block and four rows, as in any. Saved were addresses (pointers move with their loads), zeros (sums run on from block to
block and are subtracted; from group to group by parts), half of the transposition (of packed bytes) and sums in memory.
Not taken: `ld4` to one lane transposes while it loads, three instructions fewer per block, but is not one operation to
a processor. F16: ggml multiplies in half precision where the processor can, edgellm always in single, after a
conversion for every four weights.

"""


def main() -> int:
    """Count, print the table, store when asked to."""
    cpus = [word for word in sys.argv[1:] if not word.startswith("-")] or list(CPUS)
    found: dict[str, tuple[Counts, Counts, Counts]] = {}
    for cpu in cpus:
        if cpu not in CPUS:
            raise Stop(f"'{cpu}' is not counted; there are: {', '.join(CPUS)}")
        qemu = wanted_emulator(target_named(CPUS[cpu].target))
        with step(f"{cpu}: products"):
            ours = count(programs(cpu, ggml=False), qemu, cpu, CPUS[cpu].isa)
            peer = programs(cpu, ggml=True)
            found[cpu] = (ours, count(peer, qemu, cpu, "ggml-file"), count(peer, qemu, cpu, "ggml"))
    text = table(found)
    print(text)
    if "--write" in sys.argv:
        known = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
        BUDGETS.write_text(json.dumps({**known, **{cpu: ours for cpu, (ours, *_) in found.items()}}, indent=1) + "\n")
        if list(found) == list(CPUS):
            TABLE.write_text(HEAD + text)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except Stop as error:
        say(f"cross/icount/kernels.py: {error}")
        raise SystemExit(2) from None
