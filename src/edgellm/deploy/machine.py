"""What a mounted root file system, or a plain folder, is: processor, Python, C library, room."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import EdgellmError
from edgellm.store.names import megabytes

_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_WORDS = {
    "aarch64": "64-bit ARM", "armv7l": "32-bit ARM", "armv6l": "32-bit ARM (ARMv6)", "x86_64": "64-bit PC",
    "i686": "32-bit PC",
}  # fmt: skip
OLDEST_PYTHON = (3, 10)


class DeployError(EdgellmError):
    """The device cannot be served so; nothing on it has changed."""


def words(machine: str) -> str:
    """A processor for people: ``64-bit ARM (aarch64)``."""
    return f"{_WORDS[machine]} ({machine})" if machine in _WORDS and "(" not in _WORDS[machine] else machine


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where edgellm goes.

    Attributes:
        folder: The root file system, or the folder that stands for it.
        is_root: Whether it is a system: it has an /etc and a /usr/bin.
        machine: Its processor as platform.machine() names it; None for a plain folder.
        python: Version of its Python, (3, 11); None when it has none.
        libc: ("glibc", (2, 36)) or ("musl", (1, 2)); None when that cannot be told.
        systemd: Whether it has systemd.
    """

    folder: Path
    is_root: bool
    machine: str | None
    python: tuple[int, int] | None
    libc: tuple[str, tuple[int, int]] | None
    systemd: bool

    def at(self, path: str) -> Path:
        """The place of *path* of the device, with its links followed as the device would."""
        return resolve(self.folder, path)

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        assert self.python is not None
        return self.at(f"/usr/bin/python{self.python[0]}.{self.python[1]}")


def resolve(root: Path, path: str) -> Path:
    """
    *path* of a system whose root is *root*; a link to /data means *root*/data, never this machine's.

    Raises:
        DeployError: Links go round in a circle.
    """
    done: list[str] = []
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            done = done[:-1]
            continue
        here = root.joinpath(*done, part)
        if not here.is_symlink():
            done.append(part)
            continue
        links += 1
        if links > 40:
            raise DeployError(f"{root / path.lstrip('/')} goes round in a circle of links: repair that file system")
        to = str(here.readlink())
        if to.startswith("/"):
            done = []
        todo += [part for part in reversed(to.split("/")) if part not in ("", ".")]
    return root.joinpath(*done)


def inspect(folder: str | os.PathLike[str]) -> Target:
    """
    Look at *folder*.

    Raises:
        DeployError: It does not exist, is no folder, cannot be written, or is this machine's own root.
    """
    given = Path(folder)
    root = Path(os.path.realpath(given))
    if not root.exists():
        raise DeployError(f"{given} does not exist: mount the device's root file system, or make the folder, first")
    if not root.is_dir():
        what = "a disk: mount its root partition and name that folder" if root.is_block_device() else "no folder"
        raise DeployError(f"{given} is {what}")
    if root == Path("/"):
        raise DeployError("/ is this machine itself: pip install the wheel here, then run 'edgellm service install'")
    if hasattr(os, "statvfs") and os.statvfs(root).f_flag & os.ST_RDONLY:
        raise DeployError(f"{given} is mounted read-only: run 'mount -o remount,rw {given}' and try again")
    if not os.access(root, os.W_OK | os.X_OK):
        raise DeployError(f"{given} cannot be written by you: run the same command with sudo")
    is_root = resolve(root, "/usr/bin").is_dir() and resolve(root, "/etc").is_dir()
    python = _python(root) if is_root else None
    return Target(root, is_root, _machine(root, python) if is_root else None, python, _libc(root), _has_systemd(root))


def _python(root: Path) -> tuple[int, int] | None:
    """Of its python3, else the newest there is."""
    main = re.fullmatch(r"python(3)\.(\d+)", resolve(root, "/usr/bin/python3").name)
    found = [main] if main and resolve(root, "/usr/bin/python3").is_file() else []
    found += filter(
        None, (re.fullmatch(r"python(3)\.(\d+)", path.name) for path in resolve(root, "/usr/bin").iterdir())
    )
    versions = [(int(match[1]), int(match[2])) for match in found]
    return versions[0] if main and versions else max(versions, default=None)


def elf_machine(path: Path) -> str | None:
    """The processor a program or library is for; None when it is neither."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return None
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    number = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return _MACHINES.get(number, f"ELF machine {number}")


def _machine(root: Path, python: tuple[int, int] | None) -> str | None:
    names = [f"/usr/bin/python{python[0]}.{python[1]}"] if python else []
    for name in (*names, "/bin/sh", "/usr/bin/env", "/bin/busybox"):
        found = elf_machine(resolve(root, name))
        if found is not None:
            return found
    return None


def _libc(root: Path) -> tuple[str, tuple[int, int]] | None:
    for folder in ("/lib", "/usr/lib", "/lib64", "/usr/lib64"):
        base = resolve(root, folder)
        for path in (base / "libc.so.6", *sorted(base.glob("*/libc.so.6"))):
            with_links = resolve(root, "/" + str(path.relative_to(root)))
            if not with_links.is_file():
                continue
            match = re.search(rb"GNU C Library [^\n]*? version (\d+)\.(\d+)", with_links.read_bytes())
            if match:
                return "glibc", (int(match[1]), int(match[2]))
        if next(base.glob("ld-musl-*.so.1"), None):
            return "musl", (1, 2)
    return None


def _has_systemd(root: Path) -> bool:
    return any(resolve(root, f"{folder}/systemd/systemd").exists() for folder in ("/lib", "/usr/lib"))


def check_room(target: Path, needed: int) -> None:
    """
    Refuse when *needed* bytes do not fit.

    Raises:
        DeployError: They do not.
    """
    free = shutil.disk_usage(target).free
    if needed > free:
        raise DeployError(
            f"{target} has {megabytes(free)} free, this needs {megabytes(needed)}: make room or take a smaller model"
        )


def emulator(machine: str) -> list[str] | None:
    """The command that runs programs of *machine* here; [] for this machine's own, None when there is none."""
    import platform

    if platform.machine() == machine:
        return []
    name = {"armv7l": "arm", "armv6l": "arm"}.get(machine, machine)
    found = shutil.which(f"qemu-{name}-static") or shutil.which(f"qemu-{name}")
    return [found] if found and sys.platform == "linux" else None
