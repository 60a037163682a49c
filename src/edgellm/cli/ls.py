"""``edgellm ls``: the models on this machine."""

from __future__ import annotations

import click

from edgellm.cli import _options
from edgellm.cli._text import print_json, say, table
from edgellm.store.names import megabytes
from edgellm.store.shelf import Shelf


@click.command("ls")
@click.option("--all", "everything", is_flag=True, help="Also the catalog's models that are not here.")
@_options.as_json
def command(everything: bool, as_json: bool) -> None:
    """List the models on this machine."""
    shelf = Shelf()
    entries, unreadable = shelf.list(), shelf.unreadable()
    for sentence in unreadable:
        say(sentence)
    rows = [{**entry.as_json(), "here": entry.present} for entry in entries]
    if everything:
        rows += _not_here({entry.name for entry in entries})
    if as_json:
        print_json(rows)
    elif rows:
        click.echo(table([["NAME", "SIZE", "WHERE", "WHAT"], *map(_cells, rows)], right={1}))
    elif not unreadable:
        say(f"no models in {shelf.root} yet: try 'edgellm pull smollm2', or 'edgellm ls --all' for the catalog")


def _not_here(names: set[str]) -> list[dict[str, object]]:
    from edgellm.store.catalog import load

    by_name = {known.name: known for known in load().values()}
    return [
        {
            "name": known.name,
            "aliases": list(known.aliases),
            "here": False,
            "local": False,
            "n_bytes": known.n_bytes,
            "sha256": known.sha256,
            "title": known.title,
            "licence": known.licence,
            "source": known.name,
        }
        for _, known in sorted(by_name.items())
        if known.name not in names
    ]


def _cells(row: dict[str, object]) -> list[str]:
    where = "not pulled"
    if row["local"]:
        where = "in place" if row["here"] else "file is gone"
    elif row["here"]:
        where = "store"
    what = str(row["title"] or row["source"])
    return [str(row["name"]), megabytes(int(str(row["n_bytes"]))), where, what]
