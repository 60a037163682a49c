"""``edgellm pull``: bring a model here."""

from __future__ import annotations

import click

from edgellm.cli import _options
from edgellm.cli._pull import pull
from edgellm.cli._text import print_json, say
from edgellm.store.names import megabytes
from edgellm.store.store import Store


@click.command("pull")
@click.argument("spec")
@click.option("--name", help="Call it NAME here.  [default: the catalog's name, or one made from the file's]")
@_options.insecure
@_options.as_json
def command(spec: str, name: str | None, insecure: bool, as_json: bool) -> None:
    """Bring a model to this machine.

    SPEC is a name of the catalog ('smollm2'), a file on the Hugging Face Hub ('hf:ORG/REPO:Q4_K_M' or
    'hf:ORG/REPO:file.gguf'), an https URL (with '#sha256=...' it is checked), or the path of a .gguf file,
    which is registered where it lies and not copied.

    A pull that was interrupted goes on where it stopped. The model appears only when it is complete and
    its sha256 was checked.
    """
    store = Store()
    plan = store.plan(spec, name=name, insecure=insecure)
    here = store.find(plan.entry.name)
    if plan.source is None:
        entry = store.add_local(plan.entry.path, plan.entry.name)
    elif here is not None and here.source == plan.entry.source:
        entry = store.pull(plan)
    else:
        entry = pull(store, plan, ask=False)
    if as_json:
        print_json(entry.as_json())
    else:
        say(f"{entry.name} is here ({megabytes(entry.n_bytes)}): edgellm run {entry.name}")
