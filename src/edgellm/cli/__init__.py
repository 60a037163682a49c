"""The command line. `main` is its entry; everything else loads when a command needs it."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Sequence

STARTED = time.perf_counter()  # what "in all" counts from
GC_THRESHOLD = 100_000  # objects: more than all our imports make


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: What follows ``edgellm``; None: the program's own.

    Returns:
        The exit code: 0 it worked, 1 it failed, 2 wrong usage, 130 Ctrl-C.
    """
    if arguments is None:  # the process is ours: do not look for garbage among modules, 3 ms here and 6 ms at the end
        gc.set_threshold(GC_THRESHOLD)
        _fill_closed_streams()
    try:
        from edgellm.cli.app import run

        code = run(None if arguments is None else list(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = reader_left()
    except OSError as error:  # the last flush: a full disk behind `>`
        from edgellm.cli._text import say

        say(f"standard output cannot be written: {error.strerror}")
        code = reader_left()
    if arguments is None:
        gc.freeze()
    return code


def _fill_closed_streams() -> None:
    """
    Put something where a shell's ``>&-`` left nothing, or the next file opened, a model, would get that number.

    Writing to a closed standard output fails, as on a full disk; a closed standard error takes all and keeps nothing.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203 - each on its own; the lowest free number is this one
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the end, and pathlib takes time


def reader_left() -> int:
    """Whoever read our output is gone (`| head`): say nothing, and keep the interpreter from trying again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1
