"""
Call ``zig cc`` or ``zig c++`` with the flags it wants.

    python zigcc.py ZIG cc|c++ TRIPLE CPU [FLAGS...]

GNU's -march and -mfpu end in "unknown CPU" with zig, and CMake's checks then report every feature as missing. Here
they become zig's -mcpu, whose features are LLVM's names: the last -march, -mfpu or -mcpu of the line wins, as with gcc.
The rest passes through, minus linker flags that zig does not know and does not need.
"""

from __future__ import annotations

import os
import re
import sys

FEATURES = {"fp16": "fullfp16", "simd": "neon", "crypto": "crypto"}  # gcc's name: LLVM's, where they differ
FPU = {"neon-vfpv4": "neon+vfp4", "vfpv4": "vfp4d32", "neon": "neon", "vfpv3-d16": "vfp3d16", "vfp": "vfp2"}
# zig's linkers do not know these and do not need them: the version script closes the library, on macOS hidden
# visibility does (check.py looks at what is exported); libc++ and the builtins are always inside.
DROPPED = ("-Wl,--exclude-libs,ALL", "-static-libgcc", "-static-libstdc++", "-Wl,-exported_symbol,_edgellm_*")
# By these CMake asks who the compiler is. The answer is in an object file too, and to link them as programs zig would
# build a libc++ that nothing else needs: 36 s of a processor.
ASKING = ("CMakeCCompilerId.c", "CMakeCXXCompilerId.cpp")


def mcpu_of_march(march: str) -> str:
    """Zig's -mcpu for gcc's -march: ``armv8.2-a+dotprod+fp16`` is ``generic+v8_2a+dotprod+fullfp16``."""
    base, *features = march.split("+")
    match = re.fullmatch(r"armv(\d+)(?:\.(\d+))?-a", base)
    if not match:
        raise SystemExit(f"zigcc: -march={march} is not translated; add it to cross/zigcc.py")
    level, minor = match.groups()
    parts = ["generic"]
    if (level, minor) != ("8", None):  # armv8-a is generic itself
        parts.append(f"v{level}{f'_{minor}' if minor else ''}a")
    return "+".join(parts + [FEATURES.get(name, name) for name in features])


def translate(flags: list[str], cpu: str) -> list[str]:
    """*flags* as zig takes them, with one -mcpu: the last one named, else *cpu* (a target's baseline)."""
    if any(flag.endswith(ASKING) for flag in flags):
        flags = [*flags, "-c"]
    if "-shared" in flags:  # beside it zig takes -static for a wish for a static library
        flags = [flag for flag in flags if flag != "-static"]
    kept: list[str] = []
    fpu = ""
    for flag in flags:
        if flag.startswith("-march="):
            cpu, fpu = mcpu_of_march(flag.removeprefix("-march=")), ""
        elif flag.startswith("-mcpu="):
            cpu, fpu = flag.removeprefix("-mcpu=").replace("-", "_"), ""
        elif flag.startswith("-mfpu="):
            name = flag.removeprefix("-mfpu=")
            if name not in FPU:
                raise SystemExit(f"zigcc: {flag} is not translated; add it to cross/zigcc.py")
            fpu = FPU[name]
        elif flag not in DROPPED:
            kept.append(flag)
    # -g0: zig adds debugging information unasked, and with it, on macOS, the names of object files.
    return ["-mcpu=" + (f"{cpu}+{fpu}" if fpu else cpu), "-g0", *kept]


def main() -> None:
    """Become zig."""
    zig, language, triple, cpu, *flags = sys.argv[1:]
    os.execv(zig, [zig, language, "-target", triple, *translate(flags, cpu)])


if __name__ == "__main__":
    main()
