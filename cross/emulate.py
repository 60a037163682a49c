"""
How a C program of another machine is run here: QEMU with the root of a foreign system, or Wine.

Wine is optional: without it Windows programs are compiled, and said to be not run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import Stop, cache, captured, run, step
from sysroot import sysroot

TIMEOUT = 900  # seconds; a run takes 1 to 40
WINE = ["wine64", "/usr/lib/wine/wine64", "wine"]
NO_WINE = "wine is not installed"


def qemu(name: str) -> Path:
    """
    The emulator *name* of QEMU's user mode.

    Raises:
        Stop: It is not installed, and this is not a Debian root that could install it.
    """
    for spelling in (f"{name}-static", name):
        if found := shutil.which(spelling):
            return Path(found)
    if os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        with step("installing qemu"):
            run(["apt-get", "-qq", "update"], "apt-get update", quiet=True)
            run(  # the second one takes the plugin that counts instructions
                ["apt-get", "-qq", "-y", "--no-install-recommends", "install", "qemu-user-static", "qemu-user"],
                "installing qemu-user-static", env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, quiet=True,
            )  # fmt: skip
        if found := shutil.which(f"{name}-static"):
            return Path(found)
    raise Stop(f"{name} is not installed, and proofs need it: apt-get install qemu-user-static, or leave --prove away")


def wine() -> str | None:
    """Wine, if it is installed."""
    return next((found for name in WINE if (found := shutil.which(name))), None)


class Emulator:
    """Runs programs of one target, whose libraries lie in *libraries*."""

    def __init__(self, target: Mapping[str, Any], libraries: Path) -> None:
        self.windows = target["emulator"] == "wine"
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(cache()), "LC_ALL": "C.UTF-8"}
        if self.windows:
            found = wine()
            if not found:
                raise Stop(NO_WINE)
            self.command = [found]
            self.environment |= wine_environment(found)
        else:
            self.command = [str(qemu(target["emulator"]))]
            if target.get("sysroot"):
                self.command += ["-L", str(sysroot(target["sysroot"])), "-E", f"LD_LIBRARY_PATH={libraries}"]

    def run(
        self, program: Path, *arguments: str | Path, cpu: str = "", disable: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """*program* on the processor *cpu* (Wine: this machine's), with some kernels switched off."""
        command = [*self.command, *(["-cpu", cpu] if cpu and not self.windows else []), program, *arguments]
        return captured(command, env=self.environment | {"EDGELLM_CPU_DISABLE": disable}, timeout=TIMEOUT)


def wine_environment(found: str) -> dict[str, str]:
    """A Windows of our own in the cache (0.7 GB), made on first use; no window, no .NET, no browser."""
    prefix = cache() / "wine"
    environment = {
        "WINEPREFIX": str(prefix), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe="
    }  # fmt: skip
    if not (prefix / "made").is_file():
        shutil.rmtree(prefix, ignore_errors=True)
        with step("Wine's Windows folder"):
            run([found, "wineboot", "--init"], "wineboot", env={**os.environ, **environment}, quiet=True)
        (prefix / "made").touch()
    return environment
