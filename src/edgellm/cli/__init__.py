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
    try:
        from edgellm.cli.app import run

        code = run(None if arguments is None else list(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = _reader_left()
    except OSError as error:  # the last flush: a full disk behind `>`
        sys.stderr.write(f"edgellm: standard output cannot be written: {error.strerror}\n")
        code = _reader_left()
    if arguments is None:
        gc.freeze()
    return code


def _reader_left() -> int:
    """Whoever read our output is gone (`| head`): say nothing, and keep the interpreter from trying again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1
