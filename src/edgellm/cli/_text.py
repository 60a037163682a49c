"""Words on standard error, numbers for people, and small things several commands print."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

_OPTIONS = {
    r" or use kv_type q8_0| or n_seqs| a smaller n_seqs or": "",
    r"\bn_ctx=": "--ctx ",
    r"\bn_ctx\b": "--ctx",
    r"\btruncate=True\b": "--truncate",
    r"\bn_threads\b": "--threads",
}


def say(text: str) -> None:
    """One line on standard error, in the program's name; line ends inside *text* become spaces."""
    with remark():
        click.echo("edgellm: " + " ".join(text.split()), err=True)


def as_options(text: str) -> str:
    """A sentence of the library with the options' names instead of its arguments'; what has no option is left out."""
    for words, ours in _OPTIONS.items():
        text = re.sub(words, ours, text)
    return text


@contextmanager
def remark() -> Iterator[None]:
    """For writing to standard error: where that fails nothing else does, and nothing is written there any more."""
    try:
        yield
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def print_json(value: Any) -> None:
    """*value* on standard output, as one line for an object and one row a line for a list."""
    import json

    if isinstance(value, list) and value:
        rows = ",\n ".join(json.dumps(row, ensure_ascii=False) for row in value)
        click.echo(f"[{rows}]")
    else:
        click.echo(json.dumps(value, ensure_ascii=False))


def is_terminal() -> bool:
    """Whether a person is there to answer a question: standard input and error are both terminals."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def version() -> str:
    """The version of this program."""
    from edgellm import __version__

    return __version__


def table(rows: list[list[str]], right: set[int] | None = None) -> str:
    """*rows* in columns; those numbered in *right* are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = right or set()
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number(n: int, word: str) -> str:
    """``1 chunk``, ``2 chunks``."""
    return f"{n} {word}{'' if n == 1 else 's'}"
