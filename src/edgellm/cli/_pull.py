"""Pulling with words and a progress bar; used by `pull` and by commands that meet a model not here yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edgellm.cli._text import is_terminal, say
from edgellm.store.names import megabytes
from edgellm.store.shelf import Entry
from edgellm.store.source import Progress, Report, check_online
from edgellm.store.store import Plan, Store

_WORDS = {"wait": "waiting for another pull of it", "download": "fetching", "unpack": "unpacking", "verify": "checking"}


def pull(store: Store, plan: Plan, *, ask: bool) -> Entry:
    """
    Pull *plan* after one line on standard error; with *ask*, and on a terminal, after a yes.

    Raises:
        StoreError: See `Store.pull`.
        click.exceptions.Exit: The answer was no.
    """
    check_online(f"'{plan.spec}'")
    say(f"pulling {plan.describe()}")
    if ask and is_terminal():
        if plan.n_bytes is None:  # the Hub is asked only now, after the line above
            plan.prepare()
            say(plan.describe())
        if not click.confirm("Pull it?", default=True, err=True):
            say("not pulled")
            raise click.exceptions.Exit(1)
    with progress(plan.entry.name) as report:
        return store.pull(plan, report)


def fetch_missing(model: str) -> Path | None:
    """The file of a model that is not here, pulled now; None when nobody knows that name."""
    from edgellm.store.catalog import load
    from edgellm.store.names import is_spec

    if not is_spec(model) and model.lower() not in load():
        return None
    store = Store()
    return pull(store, store.plan(model), ask=True).path


@contextmanager
def progress(name: str) -> Iterator[Report]:
    """A progress bar on standard error: a live one on a terminal, else a line for each quarter."""
    if sys.stderr.isatty():
        with _live(name) as report:
            yield report
    else:
        yield _Lines(name)


class _Lines:
    """Progress for a log file: few lines, no control characters."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._quarter = 0
        self._waiting = False

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "wait" and not self._waiting:
            self._waiting = True
            say(f"{self._name}: {_WORDS['wait']}")
        if progress.stage != "download" or not progress.total:
            return
        quarter = progress.done * 4 // progress.total
        if quarter > self._quarter:
            self._quarter = quarter
            say(f"{self._name}: {megabytes(progress.done)} of {megabytes(progress.total)}")


@contextmanager
def _live(name: str) -> Iterator[Report]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns: list[Any] = [
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    ]
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)

        def report(progress: Progress) -> None:
            words = f"{name}: {_WORDS.get(progress.stage, progress.stage)}"
            bar.update(task, description=words, completed=progress.done, total=progress.total)

        yield report
