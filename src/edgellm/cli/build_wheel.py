"""``edgellm build-wheel``: a wheel for another machine, checked and run under emulation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from edgellm.cli._text import say


@click.command("build-wheel")
@click.option("--target", required=True, metavar="NAME", help="The machine: 'edgellm targets' lists them.")
@click.option("--prove", is_flag=True, help="Install and run it under emulation, on every processor it claims.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("dist"), show_default=True, metavar="DIR",
    help="Where the wheel, its bill of materials and its proofs go.",
)  # fmt: skip
def command(target: str, prove: bool, out: Path) -> None:
    """Build edgellm's wheel for another machine.

    Works on a 64-bit PC with Linux, without containers: the compiler comes from the package index, the
    other machine's Python from Debian's packages. Exit code 1 when a check or a proof fails, 2 when
    something is missing.
    """
    from edgellm.cli import _cross

    known = _cross.targets()
    if target not in known:
        raise click.UsageError(f"there is no target '{target}'; there are: {', '.join(known)}")
    try:
        root = _cross.sources()
    except _cross.SourcesMissing as error:
        say(str(error))
        raise click.exceptions.Exit(2) from None
    words = [target, *(["--prove"] if prove else []), "--out", str(out.absolute())]
    command = [sys.executable, str(root / "cross" / "build.py"), *words]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if os.name == "posix":  # one process, so that whoever ends this one ends that
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is the point
    raise click.exceptions.Exit(subprocess.run(command, env=environment, check=False).returncode)
