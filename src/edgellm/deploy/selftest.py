"""Let a staged release answer before it is put to use: its own Python and library, in an emulator or chroot."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from edgellm.deploy import machine
from edgellm.deploy.machine import DeployError, Target

SMALL_MODEL = 400 << 20  # an emulator takes some seconds a token for this
SECONDS = 900


def try_out(target: Target, release: Path, model: str, n_bytes: int) -> str:
    """
    Ask it for a token.

    Args:
        target: The root file system.
        release: The folder with the program, in it.
        model: The model's path on the device, and its size in bytes.
        n_bytes: A large one is only asked for its tokens where an emulator computes.

    Returns:
        What to say: that it passed, or why nothing was run.

    Raises:
        DeployError: It gives no answer.
    """
    found = interpreter(target)
    if isinstance(found, str):
        return f"checked as files, not run: {found}"
    inside = found.inside
    if not inside:
        model = str(target.at(model))
    program = f"/{release.relative_to(target.folder)}/edgellm" if inside else str(release / "edgellm")
    command = [*found.command, "-B", "-s", program]  # no bytecode left behind, no packages of a user
    home = model.rpartition("/models/blobs/")[0]
    small = inside or n_bytes <= SMALL_MODEL
    question = ["run", model, "-n", "1", "--temp", "0", "--raw", "The"] if small else ["tokenize", model, "The"]
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "EDGELLM_HOME": home, "EDGELLM_OFFLINE": "1"}
    failure = ""
    try:
        done = subprocess.run(
            [*command, *question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            preexec_fn=_no_core,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            failure = lines[-1].removeprefix("edgellm: ") if lines else f"exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        failure = f"no answer within {SECONDS} s"
    if failure:
        raise DeployError(f"the self-test failed ({failure}): {target.folder} is as it was before")
    return f"self-test passed: 'edgellm {question[0]}' works" + ("" if inside else " under emulation")


def _no_core() -> None:
    """A program that crashes under the emulator leaves no file of its memory in the user's folder."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Interpreter(NamedTuple):
    """What starts the device's Python here, and whether paths are then those of the device."""

    command: list[str]
    inside: bool


def interpreter(target: Target) -> Interpreter | str:
    """The device's Python, or why it cannot be run here."""
    if target.python is None or target.machine is None:
        return "a plain folder has no Python of its own"
    emulator = machine.emulator(target.machine)
    if emulator is None:
        return f"no emulator of {target.machine} here (apt-get install qemu-user-static)"
    if emulator:
        return Interpreter([*emulator, "-L", str(target.folder), str(target.interpreter)], inside=False)
    if os.geteuid() != 0:
        return "only root can run programs inside another root file system"
    return Interpreter(["chroot", str(target.folder), f"/usr/bin/{target.interpreter.name}"], inside=True)
