"""``edgellm flash``: put edgellm, a model and a service into a device's file system."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

import click

from edgellm.cli import _work
from edgellm.cli._text import say


@click.command("flash")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--wheel", type=click.Path(path_type=Path), help="edgellm's wheel for the device.")
@click.option("--model", help="A model of this machine ('edgellm ls'), or a .gguf file.")
@click.option("--python", "version", metavar="3.X", help="The device's Python, when TARGET is a plain folder.")
@click.option("--arguments", default="", help="Options of 'edgellm run' for the service, like '--ctx 2048 -n 200'.")
@click.option("--service/--no-service", default=True, help="Put systemd units there.  [default: where systemd is]")
@click.option("--dry-run", is_flag=True, help="Say what would be put where, and change nothing.")
@click.option("--verify", is_flag=True, help="Read what was put there and compare every file's sha256.")
def command(
    target: Path,
    wheel: Path | None,
    model: str | None,
    version: str | None,
    arguments: str,
    service: bool,
    dry_run: bool,
    verify: bool,
) -> None:
    """Put edgellm on a device, to run there without a network.

    TARGET is the device's root file system, mounted here, or a plain folder to be copied there. It gets the wheel and
    the packages it needs, resolved for its Python and processor, the model with its checksum, settings, and a systemd
    socket that answers questions.

    Where an emulator can run the device's programs, the new installation has to answer before anything of an old one
    is changed; when it does not, everything is as it was. Running it again updates what is there.
    """
    from edgellm.deploy import flash as deploy
    from edgellm.deploy.units import SOCKET

    if verify:
        note, wrong = deploy.verify(target)
        for line in wrong:
            say(line)
        if wrong:
            raise click.exceptions.Exit(1)
        say(f"{target}: edgellm {note['edgellm']} with {note['model']}, {len(note['files'])} files as they should be")
        return
    if wheel is None or model is None:
        raise click.UsageError("name the wheel and the model: edgellm flash TARGET --wheel FILE --model NAME")
    for name in ("SIGTERM", "SIGHUP"):  # the second one when a terminal or connection closes
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _leave)
    cache = Path(os.environ.get("EDGELLM_CACHE") or Path.home() / ".cache" / "edgellm")
    arguments = checked(arguments)
    try:
        plan = deploy.prepare(target, wheel, model, python=version, arguments=arguments, service=service, cache=cache)
        if dry_run:
            for line in plan.describe():
                click.echo(line)
            return
        with _work.progress() as report:
            said = deploy.flash(plan, report)
    except KeyboardInterrupt:
        say(f"interrupted: {target} is as it was before")
        raise
    for line in said:
        say(line)
    say(f"{target} has edgellm {plan.wheel.version}; on the device: edgellm run {plan.model.name}")
    if plan.service:
        say(f"its service: printf 'Hello' | socat -t 900 - {SOCKET}")


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Being asked to end is like Ctrl-C: what was half done is taken back."""
    raise KeyboardInterrupt


def checked(arguments: str) -> str:
    """One line of options that `edgellm run` knows."""
    from edgellm.cli.run import command as run

    if "\n" in arguments or "$" in arguments:
        raise click.UsageError("--arguments is one line without $")
    import shlex

    try:
        words = ["model", *shlex.split(arguments), "-"]
        run.make_context("run", words, parent=click.get_current_context())  # whose settings it keeps: -h is one
    except ValueError as error:
        raise click.UsageError(f"--arguments {arguments}: {error}") from None
    return arguments
