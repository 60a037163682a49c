"""
Everything a device needs, put into its root file system (or a folder), for use without a network.

A release is a folder of its own under /opt/edgellm/releases; /opt/edgellm/current points to the one in use. A new one
is staged beside it and tried; only then do settings, units and that link change, and all of that is taken back when
something fails. Models lie once, under their digest. /opt/edgellm/flash.json says what was put where, for `verify`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.deploy import bytecode, machine, packages, units
from edgellm.deploy.changes import Changes
from edgellm.deploy.machine import DeployError, Target
from edgellm.deploy.packages import Wheel
from edgellm.deploy.selftest import try_out
from edgellm.store.names import file_name, megabytes
from edgellm.store.shelf import Entry, resolve
from edgellm.store.store import Store, manifest

BASE = "/opt/edgellm"
NOTE = f"{BASE}/flash.json"
COMMAND = "/usr/local/bin/edgellm"
RESERVE = 8 << 20  # left free for the device's own logs and ours
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Flash:
    """What is to be put where."""

    target: Target
    wheel: Wheel
    python: tuple[int, int]
    model: Entry  # with its digest
    arguments: str
    service: bool
    wheels: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def release(self) -> str:
        """The name of its folder: the same contents have the same."""
        names = " ".join(path.name for path in self.wheels)
        text = f"{self.wheel.sha256} {names} {units.launcher()}"
        return f"{self.wheel.version}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def blob(self) -> Path:
        """Where the model goes."""
        return self.target.at(f"{BASE}/home/models/blobs") / f"sha256-{self.model.sha256}"

    @property
    def needed(self) -> int:
        """Bytes it takes on the target's disk."""
        needed = RESERVE + (0 if self._is_there() else packages.unpacked_bytes([self.wheel.path, *self.wheels]))
        return needed + (0 if self.blob.is_file() else self.model.n_bytes)

    def _is_there(self) -> bool:
        """Whether this wheel, with these packages if they are known yet, is what was flashed last."""
        note = _note(self.target) or {}
        known = not self.wheels or note.get("packages") == [path.name for path in self.wheels]
        return known and note.get("wheel_sha256") == self.wheel.sha256

    def describe(self) -> list[str]:
        """What would be done, a line each."""
        version = ".".join(map(str, self.python))
        lines = [
            f"{self.target.folder}: {machine.words(self.wheel.machine)}, Python {version}"
            + ("" if self.target.is_root else ", a plain folder"),
            f"{BASE}/releases/{self.release}: {self.wheel.path.name} and {len(self.wheels)} packages"
            + (f", none of {' and '.join(self.left_out)}" if self.left_out else ""),
            f"{BASE}/home/models: {self.model.name}, {megabytes(self.model.n_bytes)}"
            + (", there already" if self.blob.is_file() else ""),
            f"{units.SETTINGS_PATH}: EDGELLM_MODEL={self.model.name}",
        ]
        if self.service:
            lines.append(f"{units.UNIT_FOLDER}: {', '.join(units.NAMES)}; asked at {units.SOCKET}")
        return [
            *lines,
            f"{megabytes(self.needed)} needed, {megabytes(shutil.disk_usage(self.target.folder).free)} free",
        ]


def prepare(
    folder: str | os.PathLike[str],
    wheel: str | os.PathLike[str],
    model: str,
    *,
    python: str | None = None,
    arguments: str = "",
    service: bool = True,
    cache: Path,
) -> Flash:
    """
    Look at everything and fetch what is missing here. The target is not touched.

    Args:
        folder: A mounted root file system, or a folder that stands for one.
        wheel: edgellm's wheel for the device.
        model: A model of this machine's store, or a .gguf file.
        python: "3.11" for a folder without a Python.
        arguments: Options of 'edgellm run' for the service.
        service: Whether units are put there.
        cache: Where fetched packages stay.

    Raises:
        DeployError: It cannot work; the text says why.
        ModelNotFound: There is no such model here.
    """
    own = packages.read(wheel)
    target = machine.inspect(folder)
    version = _python(target, python)
    packages.check_fits(own, target, version)
    entry = _model(model)
    made = Flash(target, own, version, entry, arguments, service and (target.systemd or not target.is_root))
    machine.check_room(target.folder, made.needed)  # before anything is fetched
    wheels, left_out = packages.fetch(own, target, version, cache)
    whole = Flash(target, own, version, entry, arguments, made.service, wheels, left_out)
    machine.check_room(target.folder, whole.needed)
    return whole


def _python(target: Target, given: str | None) -> tuple[int, int]:
    if given is not None:
        match = re.fullmatch(r"3\.(\d+)", given)
        if not match:
            raise DeployError(f"--python is {given!r}: give the version of the device's Python, like 3.11")
        if target.python is None or not target.is_root:
            return 3, int(match[1])
    if target.python is None:
        why = "has no Python: install python3 in it" if target.is_root else "is a plain folder: say --python 3.11"
        raise DeployError(f"{target.folder} {why} (the version of the device, 3.10 or newer)")
    if target.python < machine.OLDEST_PYTHON:
        raise DeployError(
            f"{target.folder} has Python {target.python[0]}.{target.python[1]}; edgellm needs 3.10 or newer"
        )
    return target.python


def _model(name: str) -> Entry:
    """The model's entry as it will be on the device."""
    path = resolve(name)
    store = Store()
    entry = store.find(name) if not Path(name).is_file() else None
    if entry is None:
        entry = store.plan(str(path)).entry
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", path.name):
        raise DeployError(f"{path} is one part of a model: join them first ('edgellm gguf merge')")
    sha256 = entry.sha256 or packages.digest(path)
    return entry._replace(path=path, sha256=sha256, n_bytes=path.stat().st_size, local=False, source=entry.name)


# ---- putting it there ------------------------------------------------------------------------------------------------


def flash(plan: Flash, report: Report = lambda what, done, total: None) -> list[str]:
    """
    Do it.

    Args:
        plan: From `prepare`.
        report: Called with what is under way, bytes done and all.

    Returns:
        What there is to say: whether the self-test ran, what was kept or left out.

    Raises:
        DeployError: Something failed, the self-test perhaps; everything on the target is as it was before.
    """
    target = plan.target
    try:
        with _locked(target.folder), Changes() as changes:
            base = target.at(BASE)
            _sweep(base)
            release = _stage(plan, base, changes, report)
            _copy_model(plan, changes, report)
            said = [try_out(target, release, f"{BASE}/home/models/blobs/{plan.blob.name}", plan.model.n_bytes)]
            said += _settle(plan, base, release, changes)
            changes.keep()
            _remove_old(base, release.name)
            return said
    except OSError as error:
        full = error.errno in (28, 122)
        why = "became full" if full else f"cannot be written ({error.strerror or error})"
        raise DeployError(f"{target.folder} {why}: what was put there is removed again") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time, without a file that stays."""
    import fcntl

    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DeployError(f"another edgellm is writing to {folder}: wait for it") from None
    finally:
        os.close(fd)


def _sweep(base: Path) -> None:
    """What a killed run left."""
    for part in (*base.glob("releases/.*.part"), *base.glob("home/models/blobs/.*.part")):
        shutil.rmtree(part) if part.is_dir() else part.unlink()


def _stage(plan: Flash, base: Path, changes: Changes, report: Report) -> Path:
    """The release's folder: as it is, if it is there and sound; made new otherwise."""
    release = base / "releases" / plan.release
    note = _note(plan.target)
    if note and note["release"] == release.name and not _differences(plan.target, note, BASE + "/releases/"):
        return release
    changes.folder(release.parent)
    part = release.with_name(f".{release.name}.{os.getpid()}.part")  # pip may outlive a killed run
    changes.made(part)
    report("installing", 0, 1)
    tags = packages.platforms(plan.wheel, plan.target)
    packages.unpack([plan.wheel.path, *plan.wheels], tags, plan.python, part / "site")
    (part / "edgellm").write_text(units.launcher())
    bytecode.add(plan.target, plan.python, part, release)
    for path in (part, *part.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path == part / "edgellm" else 0o644)
    wrong = next((p for p in part.rglob("*.so*") if machine.elf_machine(p) not in (None, _elf_name(plan.wheel))), None)
    if wrong is not None:
        raise DeployError(f"{wrong.name} is for {machine.words(str(machine.elf_machine(wrong)))}: that wheel is wrong")
    if release.exists():
        shutil.rmtree(release)  # damaged, or left by another run: it is made anew
    part.replace(release)
    changes.made(release)
    return release


def _elf_name(wheel: Wheel) -> str:
    return "armv7l" if wheel.machine == "armv6l" else wheel.machine


def _copy_model(plan: Flash, changes: Changes, report: Report) -> None:
    """The model under its digest, checked while it is copied."""
    if plan.blob.is_file() and plan.blob.stat().st_size == plan.model.n_bytes:
        return
    changes.folder(plan.blob.parent)
    part = plan.blob.with_name(f".{plan.blob.name}.part")
    changes.made(part)
    digest, done = hashlib.sha256(), 0
    with plan.model.path.open("rb") as source, part.open("wb") as file:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            file.write(chunk)
            done += len(chunk)
            report(f"copying {plan.model.name}", done, plan.model.n_bytes)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != plan.model.sha256:
        raise DeployError(f"{plan.model.name} is damaged here: 'edgellm rm {plan.model.name}' and pull it again")
    part.chmod(0o644)
    part.replace(plan.blob)
    changes.made(plan.blob)


def _settle(plan: Flash, base: Path, release: Path, changes: Changes) -> list[str]:
    """Names, settings, units, the link to the release; returns what is to be said."""
    target, said = plan.target, []
    note = _note(target)
    files = {_inside(target, path): packages.digest(path) for path in sorted(release.rglob("*")) if path.is_file()}
    files[_inside(target, plan.blob)] = str(plan.model.sha256)
    texts = {f"{BASE}/home/models/manifests/{file_name(plan.model.name)}": manifest(plan.model).decode()}
    settings = target.at(units.SETTINGS_PATH)
    text = units.settings(plan.model.name, plan.arguments, {"EDGELLM_OFFLINE": "1"})
    if settings.is_file() and packages.digest(settings) != (note or {}).get("settings"):
        said.append(f"{units.SETTINGS_PATH} was changed there and is kept: it names the model that is used")
    else:
        changes.write(settings, text)
    if plan.service:
        texts[f"{units.UNIT_FOLDER}/{units.NAMES[0]}"] = units.socket_unit()
        texts[f"{units.UNIT_FOLDER}/{units.NAMES[1]}"] = units.service_unit(COMMAND)
        changes.link(target.at(units.UNIT_FOLDER) / units.ENABLED, f"../{units.NAMES[0]}")
    for path, content in texts.items():
        place = target.at(path.rpartition("/")[0]) / path.rpartition("/")[2]
        changes.write(place, content)
        files[path] = hashlib.sha256(content.encode()).hexdigest()
    to = os.path.relpath(base / "current" / "edgellm", target.at(COMMAND.rpartition("/")[0]))
    changes.link(target.at(COMMAND.rpartition("/")[0]) / "edgellm", to)
    written = {
        "edgellm": plan.wheel.version, "release": release.name, "wheel": plan.wheel.path.name,
        "wheel_sha256": plan.wheel.sha256, "machine": plan.wheel.machine, "python": ".".join(map(str, plan.python)),
        "model": plan.model.name, "packages": [path.name for path in plan.wheels], "left_out": plan.left_out,
        "settings": hashlib.sha256(text.encode()).hexdigest(), "files": files,
    }  # fmt: skip
    changes.write(base / "flash.json", json.dumps(written, indent=1) + "\n")
    changes.link(base / "current", f"releases/{release.name}")
    if hasattr(os, "sync"):
        os.sync()
    if plan.left_out:
        said.append(
            f"without {' and '.join(plan.left_out)}: there is no wheel for that processor, edgellm runs without"
        )
    return said


def _remove_old(base: Path, kept: str) -> None:
    for release in base.glob("releases/*"):
        if release.name != kept:
            shutil.rmtree(release, ignore_errors=True)


# ---- looking at it again ---------------------------------------------------------------------------------------------


def _inside(target: Target, path: Path) -> str:
    return "/" + path.relative_to(target.folder).as_posix()


def _note(target: Target) -> dict[str, Any] | None:
    """flash.json, or None when there is none or it is damaged."""
    try:
        note = json.loads(target.at(NOTE).read_bytes())
        return note if isinstance(note["files"], dict) and isinstance(note["release"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _differences(target: Target, note: dict[str, Any], under: str = "/") -> list[str]:
    wrong = []
    for path, wanted in note["files"].items():
        if not path.startswith(under):
            continue
        place = target.at(path)
        if not place.is_file():
            wrong.append(f"{path} is missing")
        elif packages.digest(place) != wanted:
            wrong.append(f"{path} has other contents")
    return wrong


def verify(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """
    Read every file that was put there and compare digests.

    Returns:
        flash.json, and what is wrong, a line each.

    Raises:
        DeployError: Nothing was flashed there.
    """
    root = Path(os.path.realpath(folder))
    target = Target(root, True, None, None, None, False)
    note = _note(target) if root.is_dir() else None
    if note is None:
        raise DeployError(f"{folder} has no {NOTE} that can be read: nothing was flashed there")
    wrong = _differences(target, note)
    current = target.at(BASE) / "current"
    if not current.is_symlink() or str(current.readlink()) != f"releases/{note['release']}":
        wrong.append(f"{BASE}/current does not point to releases/{note['release']}")
    return note, wrong
