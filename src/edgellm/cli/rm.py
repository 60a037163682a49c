"""``edgellm rm``: remove models."""

from __future__ import annotations

import click

from edgellm.cli import _options
from edgellm.cli._text import print_json, say
from edgellm.store.names import megabytes
from edgellm.store.store import Store


@click.command("rm")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--unfinished", is_flag=True, help="Throw away what interrupted pulls left to go on from.")
@_options.as_json
def command(names: tuple[str, ...], unfinished: bool, as_json: bool) -> None:
    """Remove models from this machine.

    A pulled file goes when no other name means it. A file of yours that was registered in place is only
    forgotten, never removed.
    """
    if not names and not unfinished:
        raise click.UsageError("name a model to remove ('edgellm ls' lists them), or give --unfinished")
    store = Store()
    removed = []
    for name in names:
        entry = store.remove(name)
        removed.append(entry.as_json())
        kept = f"; {entry.path} stays" if entry.local else ""
        if not as_json:
            say(f"{entry.name} removed{kept}")
    freed = store.sweep() if unfinished else 0
    if as_json:
        print_json({"removed": removed, "unfinished_bytes": freed})
    elif unfinished:
        say(f"{megabytes(freed)} of unfinished downloads removed")
