"""The service of this machine: the same units as on a flashed device, with this installation's program and models."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edgellm.deploy import units
from edgellm.deploy.changes import Changes
from edgellm.deploy.machine import DeployError
from edgellm.store.folders import home_folder
from edgellm.store.shelf import resolve

_SOCKET, _SERVICE = (f"{units.UNIT_FOLDER}/{name}" for name in units.NAMES)
_ENABLED = f"{units.UNIT_FOLDER}/{units.ENABLED}"
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - the sandbox has its own
_MARK = "# sha256 of the lines below, as edgellm wrote them: "


def prepare(model: str, arguments: str) -> dict[str, str]:
    """
    The files by their paths.

    Raises:
        DeployError: systemd could not take the paths as they are.
        ModelNotFound: There is no such model.
    """
    path = resolve(model)
    name = str(path.absolute()) if Path(model).exists() else model
    program = [sys.executable, "-m", "edgellm"]
    for part in (*program, name, str(home_folder())):
        if any(c in part for c in " \t\"'%$\\"):
            raise DeployError(
                f"systemd cannot be given the path {part!r}: move it to one without spaces, quotes, % and $"
            )
    if any(Path(folder) in path.resolve().parents for folder in _TEMPORARY):
        raise DeployError(f"{path} lies in a folder for temporary files, which the service does not see: move it")
    user = _user([Path(sys.executable).absolute(), Path(__file__), path])
    text = units.settings(name, arguments, {"EDGELLM_HOME": str(home_folder()), "EDGELLM_OFFLINE": "1"})
    marked = f"{_MARK}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"
    return {
        units.SETTINGS_PATH: marked,
        _SERVICE: units.service_unit(" ".join(program), user=user),
        _SOCKET: units.socket_unit(),
    }


def _user(paths: list[Path]) -> str | None:
    """Who must run it: nobody in particular if all can read *paths*, else the owner of the first that only some can."""
    import pwd

    for path in paths:
        real = Path(os.path.realpath(path))
        for step in (real, *real.parents):
            status = step.stat()
            private = not status.st_mode & (0o001 if step.is_dir() else 0o004)
            if private or (step != real and str(step) in ("/home", "/root", "/run/user")):
                return pwd.getpwuid(real.stat().st_uid).pw_name
    return None


def _edited(place: Path) -> bool:
    """Whether somebody changed the settings since they were written."""
    if not place.is_file():
        return False
    first, _, rest = place.read_text("utf-8", "replace").partition("\n")
    return first.removeprefix(_MARK) != hashlib.sha256(rest.encode()).hexdigest()


def install(files: dict[str, str], root: Path) -> list[str]:
    """
    Write *files* under *root*, and start the socket where systemd runs. Returns what to say.

    Raises:
        DeployError: They cannot be written, or systemd does not take them; nothing has changed then.
    """
    said = []
    try:
        with Changes() as changes:
            for path, text in files.items():
                place = root / path.lstrip("/")
                if path == units.SETTINGS_PATH and _edited(place):
                    said.append(f"{path} was changed by hand and is kept: it names the model that is used")
                    continue
                changes.write(place, text)
            changes.link(root / _ENABLED.lstrip("/"), f"../{units.NAMES[0]}")
            if _running(root):
                _systemctl("daemon-reload")
                _systemctl("restart", units.NAMES[0])
            changes.keep()
    except OSError as error:
        how = "run it with sudo" if isinstance(error, PermissionError) else "make the file system writable"
        raise DeployError(f"{error.filename or root} cannot be written ({error.strerror}): {how}") from None
    if _running(root):
        return [*said, f"listening: printf 'Hello' | socat -t 900 - {units.SOCKET}"]
    return [
        *said,
        f"the units are in {units.UNIT_FOLDER}; systemd does not run here, it will listen after the next start with it",
    ]


def uninstall(root: Path, *, dry_run: bool = False) -> list[str]:
    """
    Remove the units. Returns what was, or with *dry_run* would be, removed.

    Raises:
        DeployError: They cannot be removed.
    """
    names = [_ENABLED, _SOCKET, _SERVICE]
    if not _edited(root / units.SETTINGS_PATH.lstrip("/")):
        names.append(units.SETTINGS_PATH)
    there = [path for path in names if os.path.lexists(root / path.lstrip("/"))]
    if not there:
        return ["the service is not installed"]
    if dry_run:
        return there
    try:
        if _running(root):
            _systemctl("stop", units.NAMES[0])
        for path in there:
            (root / path.lstrip("/")).unlink()
        for folder in {(root / path.lstrip("/")).parent for path in (_ENABLED, units.SETTINGS_PATH)}:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if _running(root):
            _systemctl("daemon-reload")
    except OSError as error:
        raise DeployError(f"{error.filename} cannot be removed ({error.strerror}): run it with sudo") from None
    return [f"{path} removed" for path in there]


def status(root: Path) -> tuple[list[str], bool]:
    """What is there, a line each, and whether the service answers (without systemd: whether it is installed)."""
    there = [path for path in (_SOCKET, _SERVICE, _ENABLED) if os.path.lexists(root / path.lstrip("/"))]
    if len(there) < 3:
        return ["the service is not installed ('edgellm service install MODEL')"], False
    lines = [f"installed: {_SOCKET}, {_SERVICE}"]
    if not _running(root):
        return [*lines, "systemd does not run here: nobody listens"], True
    done = subprocess.run(["systemctl", "is-active", units.NAMES[0]], capture_output=True, text=True, check=False)
    active = done.stdout.strip() == "active"
    return [*lines, f"{units.SOCKET}: {'listening' if active else done.stdout.strip() or 'unknown'}"], active


def _running(root: Path) -> bool:
    return root == Path("/") and Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DeployError(f"'systemctl {' '.join(words)}' failed ({reason}): nothing was changed")
