"""Options that several commands share, in one spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

MAX_THREADS = 256  # the library's limit


class ModelFile(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic since click 8.2 only
    """A GGUF file: its path, or the name of a model on this machine. The network is never asked."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The file's path."""
        from edgellm.errors import EdgellmError
        from edgellm.store.shelf import resolve

        try:
            return resolve(value)
        except EdgellmError as error:
            self.fail(str(error), param, ctx)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
insecure = click.option("--insecure", is_flag=True, help="Allow http URLs.")
threads = click.option(
    "-t",
    "--threads",
    type=click.IntRange(min=1, max=MAX_THREADS),
    help="Threads to compute with.  [default: one per physical core we may use]",
)
