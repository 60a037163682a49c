"""A lock that serves in the order of asking, so that no thread starves another by asking again at once."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """
    Hands out turns, first come first served. Use ``with turns.turn():``.

    The wait can be interrupted by Ctrl-C in the main thread; a turn given meanwhile goes to the next in line.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._line: deque[Turn] = deque()  # the first one has the turn

    def turn(self) -> Turn:
        """A place in line, taken on entering the ``with`` block."""
        return Turn(self)

    def _join(self, turn: Turn) -> None:
        with self._guard:
            self._line.append(turn)
            if self._line[0] is turn:
                turn.granted.release()

    def _leave(self, turn: Turn) -> None:
        with self._guard:
            if turn not in self._line:
                return
            had_it = self._line[0] is turn
            self._line.remove(turn)
            if had_it and self._line:
                self._line[0].granted.release()


class Turn:
    """One place in line."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.granted = threading.Lock()
        self.granted.acquire()

    def __enter__(self) -> None:
        try:
            self._turns._join(self)
            self.granted.acquire()
        except BaseException:  # Ctrl-C while waiting
            self._turns._leave(self)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._turns._leave(self)
