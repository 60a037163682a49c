"""``edgellm service``: this machine answers on a Unix socket."""

from __future__ import annotations

from pathlib import Path

import click

from edgellm.cli._text import say


@click.group("service")
def command() -> None:
    """Let this machine answer questions as a system service.

    systemd listens on /run/edgellm.sock and starts edgellm for each question, in a sandbox; between questions nothing
    takes memory. To put edgellm on another machine, see 'edgellm flash'.
    """


_root = click.option("--root", type=click.Path(path_type=Path), default=Path("/"), hidden=True)


@command.command("install")
@click.argument("model")
@click.option("--arguments", default="", help="Options of 'edgellm run' for the service, like '--ctx 2048 -n 200'.")
@click.option("--dry-run", is_flag=True, help="Print the files, and change nothing.")
@_root
def install(model: str, arguments: str, dry_run: bool, root: Path) -> None:
    """Write the units and start listening.

    MODEL is a model of this machine ('edgellm ls') or a .gguf file.
    """
    from edgellm.cli.flash import checked
    from edgellm.deploy import service

    plan = service.prepare(model, checked(arguments))
    if dry_run:
        for path, text in plan.items():
            click.echo(f"# {path}\n{text}")
        return
    for line in service.install(plan, root):
        say(line)


@command.command("uninstall")
@click.option("--dry-run", is_flag=True, help="Print what would be removed.")
@_root
def uninstall(dry_run: bool, root: Path) -> None:
    """Stop listening and remove the units; models and settings that you changed stay."""
    from edgellm.deploy import service

    for line in service.uninstall(root, dry_run=dry_run):
        click.echo(line) if dry_run else say(line)


@command.command("status")
@_root
def status(root: Path) -> None:
    """Tell whether the service is installed and listening. Exit code 1: it is not."""
    from edgellm.deploy import service

    lines, fine = service.status(root)
    for line in lines:
        click.echo(line)
    if not fine:
        raise click.exceptions.Exit(1)
