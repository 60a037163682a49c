"""Keeps docs/cli.md true: the help pages in it are written by the program.

``python -m edgellm.cli._docs docs/cli.md`` rewrites what stands between the marks; a test fails when that would
change anything. The idea is llm's, whose pages are checked in the same way.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from edgellm.cli.app import COMMANDS, cli

WIDTH = 100
_CLICK = re.compile(r"(<!-- pages printed by click )[\d.]*( -->)")
_BLOCK = re.compile(r"(<!-- help: ([\w -]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def help_page(name: str) -> str:
    """The help page of a command, as ``gguf split``, or of the program for ``edgellm``."""
    command: click.Command = cli
    context = click.Context(cli, info_name="edgellm", terminal_width=WIDTH, **cli.context_settings)
    for word in name.split() if name != "edgellm" else ():
        assert isinstance(command, click.Group), name
        found = command.get_command(context, word)
        assert found is not None, name
        command, context = found, click.Context(found, info_name=word, parent=context, terminal_width=WIDTH)
    return command.get_help(context)


def updated(text: str) -> str:
    """*text* with every help page as the program prints it now."""
    text = _CLICK.sub(rf"\g<1>{click_version()}\g<2>", text)
    return _BLOCK.sub(lambda match: f"{match[1]}```text\n{help_page(match[2])}\n```\n{match[3]}", text)


def click_version() -> str:
    """Major and minor version of click, which breaks lines in its own way from one to the next."""
    from importlib.metadata import version

    return ".".join(version("click").split(".")[:2])


def missing(text: str) -> list[str]:
    """Commands that *text* has no page for."""
    present = {match[2] for match in _BLOCK.finditer(text)}
    return [name for name in ("edgellm", *COMMANDS) if name not in present]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(updated(target.read_text("utf-8")), "utf-8")
