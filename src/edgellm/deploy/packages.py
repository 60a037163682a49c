"""
A wheel of edgellm and what it needs, for another machine's Python.

pip resolves for the target (``--platform``, ``--python-version``, wheels alone) into a cache, so that a second run
needs no network; its environment markers speak of the Python that runs it, so what only older Pythons need is named
here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.deploy.machine import DeployError, Target, resolve, words

OPTIONAL = ("cffi", "numpy")  # edgellm runs without: over ctypes, and without embeddings and logits
_OLD_PYTHON = {(3, 10): ["tomli>=2", "typing_extensions>=4"]}
ALMOST_FULL = 40 << 20  # less than the largest package takes while it is fetched
_FULL = "the disk of the cache or of temporary files is full: make room, or set EDGELLM_CACHE and TMPDIR"
_MUSL, _GLIBC = "musllinux", "manylinux"


@dataclass(frozen=True, slots=True)
class Wheel:
    """edgellm's wheel, by its file name and contents: *platform* is the newest tag, *machine* its processor."""

    path: Path
    version: str
    python: str
    platform: str
    sha256: str

    @property
    def machine(self) -> str:
        """The processor, as platform.machine() names it."""
        match = re.search(r"(aarch64|armv7l|armv6l|x86_64|i686|riscv64|ppc64le|s390x)$", self.platform)
        return match[1] if match else self.platform

    @property
    def libc(self) -> tuple[str, tuple[int, int]] | None:
        """("glibc", (2, 28)) by its tag; None for a plain linux tag."""
        match = re.match(r"(many|musl)linux_(\d+)_(\d+)_", self.platform)
        return ("glibc" if match[1] == "many" else "musl", (int(match[2]), int(match[3]))) if match else None


def read(path: str | os.PathLike[str]) -> Wheel:
    """
    Read a wheel of edgellm.

    Raises:
        DeployError: It does not exist, is damaged or of something else, or for no Linux.
    """
    given = Path(path)
    if not given.is_file():
        raise DeployError(f"{given} does not exist: 'edgellm build-wheel --target NAME' makes a wheel for a device")
    match = re.fullmatch(r"([\w.]+)-([\w.+!]+)(?:-\d\w*)?-([\w.]+)-([\w.]+)-([\w.]+)\.whl", given.name)
    if not match:
        raise DeployError(f"{given} is no wheel: its name has the form edgellm-VERSION-py3-none-PLATFORM.whl")
    if match[1].lower() != "edgellm":
        raise DeployError(f"{given} is a wheel of {match[1]}, not of edgellm")
    try:
        with zipfile.ZipFile(given) as archive:
            names = set(archive.namelist())
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise DeployError(f"{given} is damaged ({error}): build or copy it again") from None
    if bad is not None:
        raise DeployError(f"{given} is damaged ({bad} has another checksum): build or copy it again")
    platforms = match[5].split(".")
    if not any("linux" in platform for platform in platforms):
        raise DeployError(f"{given.name} is for {match[5]}: only Linux devices can be flashed")
    if not any(name.startswith("edgellm/lib/libedgellm") for name in names):
        raise DeployError(f"{given} holds no library of edgellm: build it again")
    return Wheel(given.resolve(), match[2], match[3], max(platforms, key=len), digest(given))


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        state = hashlib.sha256()
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()


def check_fits(wheel: Wheel, target: Target, python: tuple[int, int]) -> None:
    """
    Refuse a wheel that the target cannot run.

    Raises:
        DeployError: Other processor, C library or Python.
    """
    if target.machine is not None and target.machine != wheel.machine:
        arm = {"armv7l", "armv6l"} >= {target.machine, wheel.machine}  # their programs look alike
        if not arm:
            raise DeployError(
                f"{wheel.path.name} is for {words(wheel.machine)}, but {target.folder} is {words(target.machine)}: "
                "take the wheel for that ('edgellm targets' lists them)"
            )
    if target.libc and wheel.libc and (target.libc[0] != wheel.libc[0] or target.libc[1] < wheel.libc[1]):
        have, want = (f"{name} {'.'.join(map(str, version))}" for name, version in (target.libc, wheel.libc))
        raise DeployError(f"{wheel.path.name} needs {want}, but {target.folder} has {have}: use a newer system there")
    if wheel.python.startswith("cp") and f"cp{python[0]}{python[1]}" not in wheel.python.split("."):
        raise DeployError(
            f"{wheel.path.name} is for Python {wheel.python}, but {target.folder} has {python[0]}.{python[1]}: "
            "take a py3 wheel ('edgellm build-wheel' makes them)"
        )


def platforms(wheel: Wheel, target: Target) -> list[str]:
    """The platform tags the target's pip would accept, best first."""
    machine, libc = wheel.machine, target.libc or wheel.libc
    tags = []
    if libc and libc[0] == "musl":
        tags = [f"{_MUSL}_1_{minor}_{machine}" for minor in range(libc[1][1], -1, -1)]
    elif libc:
        tags = [f"{_GLIBC}_2_{minor}_{machine}" for minor in range(libc[1][1], 4, -1)]
        tags += [f"{_GLIBC}{old}_{machine}" for old in ("2014", "2010", "1")]
    return [*dict.fromkeys((*tags, wheel.platform, f"linux_{machine}"))]


def fetch(wheel: Wheel, target: Target, python: tuple[int, int], cache: Path) -> tuple[list[Path], list[str]]:
    """
    The wheels *wheel* needs, for the target: from *cache*, or fetched into it.

    Returns:
        The files, without *wheel* itself; and what was left out, since there is no wheel of it and edgellm runs without
        or the target has it.

    Raises:
        DeployError: pip cannot reach its index, or there is no wheel of something needed.
    """
    tags = platforms(wheel, target)
    key = hashlib.sha256(f"{requirements(wheel.path)} {tags} {python}".encode()).hexdigest()[:24]
    folder = cache / "flash" / key
    if (folder / "complete").is_file():
        left_out = (folder / "complete").read_text().split()
        for name in left_out:  # the target they were resolved for may have had it
            if name not in OPTIONAL and not has(target, name):
                raise DeployError(_no_wheel(name, wheel.machine))
        return sorted(folder.glob("*.whl")), left_out
    if os.environ.get("EDGELLM_OFFLINE", "0") not in ("", "0"):
        raise DeployError(
            f"the packages that {wheel.path.name} needs are not in {cache} and EDGELLM_OFFLINE forbids fetching them: "
            "unset it for the first run"
        )
    part = folder.with_name(f"{key}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        left_out = _resolve(wheel, target, python, tags, part)
        for own in part.glob("edgellm-*.whl"):
            own.unlink()
        (part / "complete").write_text("\n".join(left_out))
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except DeployError as error:  # pip calls a full disk a broken connection
        if min(shutil.disk_usage(place).free for place in (part.parent, tempfile.gettempdir())) < ALMOST_FULL:
            raise DeployError(_FULL) from error
        raise
    except OSError as error:
        raise DeployError(f"the cache {cache} cannot be written ({error.strerror}): set EDGELLM_CACHE") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sorted(folder.glob("*.whl")), left_out


def _resolve(wheel: Wheel, target: Target, python: tuple[int, int], tags: Sequence[str], folder: Path) -> list[str]:
    """All at once; where that fails, one by one, to tell what has no wheel. Returns what is left out."""
    options = ["--only-binary=:all:", *pip_target(tags, python), "--dest", str(folder)]
    extra = _OLD_PYTHON.get(python, [])
    failure = _pip(["download", *options, str(wheel.path), *extra])
    if failure is None:
        return []
    if "No matching distribution" not in failure or "Retrying" in failure:
        raise DeployError(_explain("the packages", failure, wheel.machine))
    left_out: list[str] = []
    todo, seen = [*requirements(wheel.path), *extra], set[str]()
    while todo:
        requirement = todo.pop(0)
        name = _name(requirement)
        if name in seen:
            continue
        seen.add(name)
        before = set(folder.glob("*.whl"))
        failure = _pip(["download", "--no-deps", *options, requirement])
        if failure is None:
            for made in set(folder.glob("*.whl")) - before:
                todo += requirements(made)
        elif "No matching distribution" in failure and (name in OPTIONAL or has(target, name)):
            left_out.append(name)
        else:
            raise DeployError(_explain(requirement, failure, wheel.machine))
    return left_out


def pip_target(tags: Sequence[str], python: tuple[int, int]) -> list[str]:
    """Options of pip that speak of another Python."""
    version = f"{python[0]}.{python[1]}"
    abis = [f"cp{python[0]}{python[1]}", "abi3", "none"]
    options = ["--implementation", "cp", "--python-version", version]
    return [*options, *(f"--abi={abi}" for abi in abis), *(f"--platform={tag}" for tag in tags)]


def _pip(arguments: Sequence[str]) -> str | None:
    """Run pip; None when it worked, else what it said."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-input", "--disable-pip-version-check"]
    if arguments[0] == "download":
        command.append("--retries=2")  # "no matching distribution" without a word of retries means just that
    with tempfile.TemporaryDirectory(
        prefix="edgellm-", ignore_cleanup_errors=True
    ) as folder:  # pip, killed, leaves its
        environment = {**os.environ, "PIP_NO_COLOR": "1", "TMPDIR": folder}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
        )
    if done.returncode == 0:
        return None
    if "No module named pip" in done.stderr:
        raise DeployError(f"this Python has no pip, which fetches packages: run '{sys.executable} -m ensurepip'")
    return done.stderr + done.stdout


def _explain(requirement: str, log: str, machine: str) -> str:
    if "Errno 28" in log or "No space left" in log:
        return _FULL
    if "Retrying" in log or "connection" in log.lower():
        return "pip cannot reach its index for the packages edgellm needs: check the network ('pip config list')"
    errors = [line.partition("ERROR:")[2].strip() for line in log.splitlines() if "ERROR:" in line]
    if any("No matching" in error for error in errors):
        return _no_wheel(requirement, machine)
    return f"pip could not fetch {requirement}: {errors[-1] if errors else 'it gave no reason'}"


def _no_wheel(requirement: str, machine: str) -> str:
    return f"the package index has no wheel of {requirement} for {words(machine)}: install it in the target first"


def requirements(wheel: Path) -> list[str]:
    """Its Requires-Dist without extras and conditions that this module knows not to hold on Linux."""
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode("utf-8", "replace").partition("\n\n")[0]
    found = []
    for line in re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE):
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        if re.search(r"extra|python_|win32|Windows|PyPy", marker) and "!=" not in marker:
            continue
        found.append(requirement)
    return found


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else requirement


def has(target: Target, name: str) -> bool:
    """Whether the target's own Python has the package."""
    folders = [resolve(target.folder, "/usr/lib/python3/dist-packages")]
    if target.python:
        version = f"python{target.python[0]}.{target.python[1]}"
        folders += [resolve(target.folder, f"{base}/{version}") for base in ("/usr/lib", "/usr/local/lib")]
        folders += [folder / "site-packages" for folder in folders] + [folder / "dist-packages" for folder in folders]
    infos = (path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
    return any(_name(info.split("-")[0]) == name for info in infos if info.endswith((".dist-info", ".egg-info")))


def unpack(wheels: Sequence[Path], tags: Sequence[str], python: tuple[int, int], folder: Path) -> None:
    """
    Install *wheels* into *folder*, for the target; no scripts, since they would name this machine's Python.

    Raises:
        DeployError: pip failed.
    """
    options = ["--no-index", "--no-deps", "--no-compile", "--only-binary=:all:", "--root-user-action=ignore"]
    failure = _pip(["install", *options, *pip_target(tags, python), "--target", str(folder), *map(str, wheels)])
    if failure is not None:
        raise DeployError(_explain("the packages", failure, tags[-1].removeprefix("linux_")))
    shutil.rmtree(folder / "bin", ignore_errors=True)


def unpacked_bytes(wheels: Sequence[Path]) -> int:
    """What *wheels* take on a disk of 4 kB blocks."""
    total = 0
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            total += sum(-(-info.file_size // 4096) * 4096 for info in archive.infolist())
    return total
