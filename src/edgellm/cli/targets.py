"""``edgellm targets`` and ``edgellm build-wheel``: wheels for other machines, by the scripts of the sources' cross/."""

from __future__ import annotations

import click

from edgellm.cli import _options
from edgellm.cli._text import print_json, table


@click.command("targets")
@_options.as_json
def command(as_json: bool) -> None:
    """List the machines that wheels can be built for.

    'edgellm build-wheel --target NAME' builds one, on any 64-bit PC with Linux, without containers.
    """
    from edgellm.cli._cross import targets

    known = targets()
    if as_json:
        print_json([{"name": name, **target} for name, target in known.items()])
        return
    rows = [[name, target["tag"], target["about"]] for name, target in known.items()]
    click.echo(table([["TARGET", "TAG", "FOR"], *rows]))
