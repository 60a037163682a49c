"""
Build edgellm's wheel for another machine, look at it, and run it on the processors it claims.

    python cross/build.py TARGET [--prove] [--out DIR]
    python cross/build.py list
    python cross/build.py all [--out DIR]      every target that can be built here, and docs/platforms.md

Needs Python, pip and, for --prove, qemu. Compiler and build tools come from the package index into the cache
(EDGELLM_CACHE, else ~/.cache/edgellm). The same sources give the same bytes. Exit codes: 0 it worked, 1 a check or
a proof found something, 2 something is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from check import CHECKS, check
from common import ROOT, Needs, Stop, cache, interruptible, need_space, say, target_named, targets
from papers import write_papers
from repack import repack
from zigtools import build_folder, compile_wheel, installed, wrappers

WHEEL_MB = 10  # and what lies beside it


def build(target: dict[str, Any], out: Path) -> Path:
    """
    Make the wheel of *target* in *out*.

    Raises:
        Stop: A tool is missing, or the compiler found a fault.
    """
    out = _writable(out)
    if target.get("needs"):
        from mobile import build_mobile

        return build_mobile(target, out)
    tools = installed()
    programs = wrappers(build_folder(target) / "tools", tools, target, target["triple"])
    return repack(compile_wheel(target, tools, toolchain(target, programs)), out, target, tools)


def toolchain(target: dict[str, Any], programs: Path) -> dict[str, str]:
    """What CMake is told of a target that zig builds."""
    return {
        "CMAKE_TOOLCHAIN_FILE": str(ROOT / "cross" / "zig.cmake"), "CMAKE_BUILD_TYPE": "Release",
        "EL_ZIG_TOOLS": str(programs), "EL_ZIG_SYSTEM": target["system"], "EL_ZIG_PROCESSOR": target["processor"],
    }  # fmt: skip


def _writable(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".edgellm-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Stop(f"{out} cannot be written to ({error.strerror}): name another folder with --out") from None
    need_space(out, WHEEL_MB)
    return out.resolve()


def look(wheel: Path, target: dict[str, Any]) -> list[dict[str, str]]:
    """The static checks' results, for proofs.json; findings are said."""
    results = []
    for name, findings in check(wheel, target).items():
        for text in findings:
            say(f"  {name}: {text}")
        results.append({"check": name, "result": "failed" if findings else "passed", "detail": "; ".join(findings)})
    return results


def make(
    name: str, out: Path, proving: bool, *, quick: bool = False
) -> tuple[dict[str, Any], Path, list[dict[str, str]]]:
    """
    Build, look and prove one target; then put the wheel into *out*, and what lies beside it.

    Args:
        name: The target.
        out: A folder, made if need be.
        proving: Run the wheel, or compile what can be compiled without the tool that the target needs.
        quick: Kernels on one processor of a kind instead of all.

    Raises:
        Needs: The target needs a tool that is not here; how far it came without it is said.
        Stop: Something else is missing, or a file does not compile.
    """
    target = target_named(name)
    if proving and target.get("emulator", "wine") != "wine":
        from emulate import qemu

        qemu(target["emulator"])  # what is missing is said before minutes of compiling
    is_new = not out.exists()
    out = _writable(out)
    compiled = ""
    try:
        if proving and "gate" in target:
            from mobile import gate

            compiled = gate(target)
        with tempfile.TemporaryDirectory(prefix=".edgellm-", dir=out) as part:
            wheel = build(target, Path(part))
            results = look(wheel, target)
            if proving:
                import prove

                results += prove.prove(wheel, target, quick=quick)
            wheel = wheel.replace(out / wheel.name)
        write_papers(wheel, target, results)
    except Needs as error:
        error.compiled = compiled
        raise
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # there is something in it
                out.rmdir()
    failed = [one for one in results if one["result"] == "failed"]
    size = wheel.stat().st_size / 1e6
    say(f"{wheel}: {size:.2f} MB, {len(CHECKS)} checks, {len(results) - len(CHECKS)} proofs, {len(failed)} failed")
    return target, wheel, results


def build_all(out: Path) -> int:
    """Every target that can be built here; then the table."""
    import platforms

    rows: list[platforms.Row] = []
    for name in targets():
        try:
            rows.append((target_named(name), *make(name, out, proving=True)[1:]))
        except Needs as error:  # noqa: PERF203 - each target on its own
            say(f"{name}: {error}")
            rows.append((target_named(name), None, [{"check": "build", "result": "needs", "detail": error.compiled}]))
        except Stop as error:
            say(f"{name}: {error}")
            rows.append((target_named(name), None, [{"check": "build", "result": "not built", "detail": str(error)}]))
    platforms.write(rows)
    print(platforms.table(rows))
    return any(one["result"] in ("failed", "not built") for _, _, results in rows for one in results)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="cross/build.py", description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("target", help="a target, 'list' or 'all'")
    parser.add_argument("--prove", action="store_true", help="run the wheel on every CPU model it claims")
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="where the wheel goes (dist)")
    options = parser.parse_args()
    try:
        with interruptible():
            if options.target == "list":
                for name, target in targets().items():
                    print(f"{name:15} {target['tag']:26} {target['about']}")
                return 0
            cache()
            if options.target == "all":
                return build_all(options.out)
            results = make(options.target, options.out, options.prove)[2]
            return int(any(one["result"] == "failed" for one in results))
    except Stop as error:
        say(f"edgellm: {error}")
        return 2
    except OSError as error:  # a disk became full, a file system went away
        say(f"edgellm: {error.filename or 'a file'} cannot be read or written: {error.strerror}")
        return 2
    except KeyboardInterrupt:
        say("edgellm: interrupted; what was compiled is kept, no wheel was written")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
