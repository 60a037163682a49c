"""Options that several commands share, in one spelling."""

from __future__ import annotations

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
insecure = click.option("--insecure", is_flag=True, help="Allow http URLs.")
threads = click.option(
    "-t",
    "--threads",
    type=click.IntRange(min=1, max=1024),
    help="Threads to compute with.  [default: one per physical core we may use]",
)
