"""
Run a wheel on every processor that its target claims, under emulation, with the target's own Python.

    python cross/prove.py TARGET WHEEL

What is shown, each a line of proofs.json:
  install      the target's own pip installs the wheel and its dependencies from a local folder, and refuses the file
               under another machine's tag
  doctor       the installed program starts and finds nothing wrong
  picked       on each processor: the kernels meant for it are chosen, a model of every weight type gives the recorded
               logits to the last bit, text is generated, the process ends with exit code 0
  forced       the same with each slower kernel, and plain C
  pages        the same on kernels with larger pages
  instructions no more of them than stored, for the import, a token of a prompt, a generated token
  large file   on 32 bits, a model file of over 2 GiB is refused with a sentence
Emulation says nothing about speed. prove_c.py adds C programs, the only ones where no Python is to be had.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import ROOT, Stop, cache, captured, interruptible, need_space, run, say, step, target_named, whole
from emulate import TIMEOUT, qemu
from icount.count import budgets
from proofs import FIXTURE, Job, Proofs
from sysroot import python, sysroot

SLOWER = {"i8mm": ["dotprod", "neon", "ref"], "dotprod": ["neon", "ref"], "neon": ["ref"], "avx2": ["ref"]}
DISABLE = {"dotprod": "i8mm", "neon": "dotprod", "ref": "neon,avx2"}  # what to switch off to get there
SIZE_MB = 200  # dependencies, as wheels and installed


class Machine:
    """A Debian of another architecture, with a folder of Python packages, under emulation."""

    def __init__(self, target: Mapping[str, Any]) -> None:
        self.target, self.emulator = target, qemu(target["emulator"])
        self.root = sysroot(target["sysroot"])
        self.python = python(self.root)
        self.version = self.python.name.removeprefix("python")
        self.debian = self.root / "usr" / "lib" / "python3" / "dist-packages"
        self.home = cache() / f"python-{target['name']}"
        self.compiled = f"EDGELLM_SYSROOT_{target['sysroot'].upper()}" not in os.environ  # not in a user's folder
        if self.compiled and not (self.root / ".compiled").is_file():
            for folder in self.root.glob("usr/lib/python3*"):
                self.compile(folder)
            (self.root / ".compiled").touch()
        self.bits: dict[str, str] = {}  # the sum of the first processor's logits, where they are the target's own

    def packages(self, prefix: Path) -> Path:
        """Where pip puts packages below *prefix*."""
        return next(iter(prefix.glob("**/dist-packages")), prefix / "lib" / f"python{self.version}" / "site-packages")

    def run(
        self,
        arguments: Sequence[str | Path],
        paths: Sequence[Path],
        *,
        cpu: str = "max",
        page: int = 0,
        disable: str = "",
        emulator: Path | None = None,
        options: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """The target's Python with *arguments*, and *paths* to find packages in."""
        found = [*paths, *([self.debian] if self.debian.is_dir() else [])]
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, found)), "PYTHONNOUSERSITE": "1", "EDGELLM_OFFLINE": "1",
            "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "EDGELLM_CPU_DISABLE": disable,
            "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0",
        }  # fmt: skip
        options = [*options, *(["-p", str(page)] if page else []), "-cpu", cpu, "-L", str(self.root)]
        command = [emulator or self.emulator, *options, self.python, *arguments]
        return captured(command, env=environment, timeout=TIMEOUT)

    def dependencies(self, wheel: Path) -> tuple[Path, Path, Path]:
        """
        Folders with pip, with the dependencies' wheels, and with them installed by the target's pip; made once.

        Raises:
            Stop: The package index has no wheel of one of them for the target, or cannot be reached.
        """
        wanted = requirements(wheel)
        have = {"cffi", "numpy", "markupsafe"} if self.target["sysroot"] == "armhf" else set()  # Debian's
        wanted = [one for one in wanted if not any(one.lower().startswith(name) for name in have)]
        layout = "2"  # of the folder: counted up when it changes, since older ones lie in caches
        key = hashlib.sha256("\n".join([*wanted, self.version, self.target["tag"], layout]).encode()).hexdigest()[:12]
        folder = self.home / key
        if not folder.is_dir():
            tags = [f"--platform={tag}" for tag in platforms(self.target["tag"])]
            need_space(cache(), SIZE_MB)
            with step(f"{self.target['name']}: dependencies, installed by the target's pip"), whole(folder) as part:
                download = [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--retries=2",
                ]
                around = {**os.environ, "TMPDIR": str(part)}  # /tmp may be a small one
                run([*download, "--no-deps", "--dest", part, "pip>=26"], "fetching pip", quiet=True, env=around)
                [pip] = part.glob("pip-*.whl")
                with zipfile.ZipFile(pip) as archive:
                    archive.extractall(part / "pip")
                self.compile(part / "pip")
                run(
                    [*download, "--only-binary=:all:", *tags, f"--python-version={self.version}",
                     "--implementation=cp", "--dest", part / "wheels", *wanted,
                     *(["--no-deps", "markdown-it-py", "mdurl", "pygments", "wcwidth"] if have else [])],
                    "fetching the dependencies", quiet=True, env=around,
                )  # fmt: skip
                done = self.run(
                    ["-m", "pip", "install", "--quiet", "--no-index", "--no-warn-script-location", "--no-compile",
                     "--find-links", part / "wheels", "--prefix", part / "site", *wanted],
                    [part / "pip"],
                )  # fmt: skip
                if done.returncode:
                    raise Stop(f"the target's pip could not install the dependencies: {done.stderr.strip()[-300:]}")
                self.compile(part / "site")
        return folder / "pip", folder / "wheels", self.packages(folder / "site")

    def compile(self, folder: Path) -> None:
        """Bytecode for *folder*, by this machine's Python if it has the version: under emulation it takes a minute."""
        words = ["-m", "compileall", "-q", "-j", "0", "-s", str(folder), str(folder)]
        same = self.version == f"{sys.version_info[0]}.{sys.version_info[1]}"
        here = sys.executable if same else shutil.which(f"python{self.version}")
        if here:
            captured([here, *words], timeout=TIMEOUT)
        else:
            self.run(words, [])


def platforms(tag: str) -> list[str]:
    """Older tags that machines of *tag* take as well."""
    machine = tag.partition("_2_28_")[2]
    return [f"manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)] + [f"manylinux2014_{machine}"]


def requirements(wheel: Path) -> list[str]:
    """What the wheel asks for on Python 3.11 and later, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return sorted(
        line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist:") and ";" not in line
    )


def prove(wheel: Path, target: Mapping[str, Any], *, quick: bool = False) -> list[dict[str, str]]:
    """
    All proofs of *target* that can be made here; *quick*: kernels' tests on one processor of a kind.

    Raises:
        Stop: A tool is missing. A proof that fails is a result, not an exception.
    """
    from prove_c import prove_c

    proofs = Proofs(target)
    if target["proof"] == "python":
        prove_python(wheel, target, proofs)
    if target.get("needs"):
        proofs.note("run", "not run", target["why"])
    else:
        prove_c(wheel, target, proofs, quick=quick)
    return proofs.results


def prove_python(wheel: Path, target: Mapping[str, Any], proofs: Proofs) -> None:
    """Installed and run by the target's own Python."""
    machine = Machine(target)
    pip, wheels, site = machine.dependencies(wheel)
    with step(f"{target['name']}: proofs"), tempfile.TemporaryDirectory(prefix="edgellm-prove-") as name:
        folder = Path(name)
        fault = install(machine, wheel, folder / "site", pip, wheels, site)
        proofs.add("install", "", fault, "by the target's own pip")
        if fault:
            return
        paths = [machine.packages(folder / "site"), site]
        jobs = [Job("doctor", next(iter(target["cpus"])), lambda: (doctor(machine, paths), ""))]
        if "refuses" in target:
            as_other = f"as {target['refuses']}"
            jobs.append(Job("refused", "", lambda: (refused(machine, wheel, folder, pip, site), as_other)))
        if target["machine"] == "arm":
            sentence = "refused with a sentence"
            jobs.append(Job("large file", "max", lambda: (large_file(machine, folder, paths), sentence)))
        counted = budgets(machine, paths)
        if "count" in target and not counted:
            proofs.note("budgets", "not run", f"{target['emulator']} (Debian's qemu-user) is not installed")
        proofs.make([*jobs, *on_processors(machine, paths), *counted])


def install(machine: Machine, wheel: Path, prefix: Path, pip: Path, wheels: Path, site: Path) -> str:
    """What is wrong with installing *wheel*; empty when it worked."""
    done = machine.run(
        ["-m", "pip", "install", "--no-index", "--find-links", wheels, "--prefix", prefix,
         "--no-warn-script-location", wheel],
        [pip, site],
    )  # fmt: skip
    if done.returncode:
        return f"pip: {(done.stderr or done.stdout).strip()[-300:]}"
    return "" if (machine.packages(prefix) / "edgellm").is_dir() else "pip installed it, but not where its Python looks"


def refused(machine: Machine, wheel: Path, folder: Path, pip: Path, site: Path) -> str:
    """Pip must not take the same file under another machine's tag."""
    other = folder / wheel.name.replace(machine.target["tag"], machine.target["refuses"])
    shutil.copy(wheel, other)
    done = machine.run(
        ["-m", "pip", "install", "--no-index", "--no-deps", "--prefix", folder / "other", other], [pip, site]
    )
    said = done.stderr + done.stdout
    return "" if done.returncode and "not a supported wheel" in said else f"pip accepted {other.name}"


def on_processors(machine: Machine, paths: Sequence[Path]) -> list[Job]:
    """Each processor with the kernels picked for it; slower ones on the first processor that has them all."""
    jobs: list[Job] = []
    close = "close to the recorded logits" if machine.target.get("own_bits") else "recorded logits"

    def add(check: str, cpu: str, kernels: str, detail: str, disable: str = "", page: int = 0) -> None:
        jobs.append(Job(check, cpu, lambda: (answer(machine, paths, cpu, kernels, disable=disable, page=page), detail)))

    seen: set[str] = set()
    for cpu, kernels in machine.target["cpus"].items():
        add("picked", cpu, kernels, f"{kernels}, {close}")
        for other in SLOWER.get(kernels, []) if kernels not in seen else []:
            add("forced", cpu, other, f"{other}, {close}", disable=DISABLE[other])
        seen.add(kernels)
    cpu, kernels = list(machine.target["cpus"].items())[-1]
    for page in machine.target.get("pages", []):
        add("pages", cpu, kernels, f"{page // 1024} KiB", page=page)
    return jobs


def answer(machine: Machine, paths: Sequence[Path], cpu: str, kernels: str, *, disable: str = "", page: int = 0) -> str:
    """What is wrong with the model's answer; empty when nothing is."""
    done = machine.run([ROOT / "cross" / "on_target.py", FIXTURE], paths, cpu=cpu, disable=disable, page=page)
    fault = judge(done.returncode, done.stdout, done.stderr, kernels)
    if fault == CLOSE and machine.target.get("own_bits"):
        found = str(json.loads(done.stdout)["sha256"])
        return "" if machine.bits.setdefault("", found) == found else "other bits than on the first processor"
    return fault


CLOSE = "other bits than recorded, but close"


def judge(code: int, out: str, err: str, kernels: str) -> str:
    """Compare what on_target.py said with what was recorded."""
    if code:
        return f"exit code {code}: {err.strip()[-200:]}"
    expected, found = json.loads(FIXTURE.with_suffix(".json").read_text()), json.loads(out)
    if found["kernels"] != kernels:
        return f"picked {found['kernels']}, not {kernels}"
    worst = max(abs(a - b) for a, b in zip(expected["logits"], found["logits"], strict=True))
    if worst > 1e-4:
        return f"logits differ by {worst:.2g}"
    if found["tokens"] != expected["tokens"]:
        return f"generated {found['tokens']}, not {expected['tokens']}"
    return "" if found["sha256"] == expected["sha256"] else CLOSE


def doctor(machine: Machine, paths: Sequence[Path]) -> str:
    """The installed command line examines itself."""
    done = machine.run(["-m", "edgellm", "doctor"], paths, cpu=next(iter(machine.target["cpus"])))
    return done.stderr.strip()[-200:] or f"exit code {done.returncode}" if done.returncode else ""


def large_file(machine: Machine, folder: Path, paths: Sequence[Path]) -> str:
    """A model file that 32 bits cannot map: one sentence, exit code 1."""
    path = folder / "large.gguf"
    shutil.copy(FIXTURE, path)
    with path.open("r+b") as file:
        file.truncate(3 << 30)  # sparse: takes no room
    done = machine.run(["-m", "edgellm", "run", path, "Hello"], paths)
    said = done.stderr.strip()
    return (
        ""
        if done.returncode == 1 and said.count("\n") == 0 and "large.gguf" in said
        else f"exit code {done.returncode}: {said[-200:]}"
    )


def main() -> int:
    """Prove one wheel."""
    if len(sys.argv) != 3:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    try:
        with interruptible():
            results = prove(Path(sys.argv[2]).resolve(), target_named(sys.argv[1]))
    except Stop as error:
        say(f"cross/prove.py: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    return int(any(one["result"] == "failed" for one in results))


if __name__ == "__main__":
    raise SystemExit(main())
