"""A lock that serves in the order of asking, so that no thread starves another by asking again at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from edgellm.errors import EdgellmError


class Turns:
    """
    Hands out turns, first come first served. Use ``with turns.turn():``.

    The wait can be interrupted by Ctrl-C in the main thread; a turn given meanwhile goes to the next in line. A thread
    that has a turn, or waits for one, gets no second one: it would wait for itself. Only signal handlers and what the
    garbage collector ends ask for that, and the latter can leave its work to the next turn that ends (`run`).

    Args:
        has_lock: Whether this thread has a lock that those who have the turn take.
    """

    def __init__(self, has_lock: Callable[[], bool] = lambda: False) -> None:
        self._has_lock = has_lock
        self._guard = threading.Lock()
        self._line: deque[Turn] = deque()  # the first one has the turn
        self._threads: dict[int, Turn] = {}  # of those in line; also while the guard is held, so no part of the line
        self._left: deque[Callable[[], None]] = deque()

    def turn(self) -> Turn:
        """A place in line, taken on entering the ``with`` block."""
        return Turn(self)

    def run(self, work: Callable[[], None]) -> None:
        """Do *work* in a turn; where this thread gets none, at the end of the next one that ends."""
        if self._is_inside():
            self._left.append(work)
            return
        with self.turn():
            work()

    def _is_inside(self) -> bool:
        """Whether a turn for this thread could wait for the thread itself."""
        return threading.get_ident() in self._threads or self._has_lock()

    def _join(self, turn: Turn) -> None:
        with self._guard:
            self._line.append(turn)
            if self._line[0] is turn:
                turn.granted.release()

    def _leave(self, turn: Turn) -> None:
        try:
            with self._guard:
                if turn not in self._line:
                    return
                had_it = self._line[0] is turn
                self._line.remove(turn)
                if had_it and self._line:
                    self._line[0].granted.release()
        finally:
            self._threads.pop(turn.thread, None)


class Turn:
    """One place in line."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.thread = threading.get_ident()
        self.granted = threading.Lock()
        self.granted.acquire()

    def __enter__(self) -> None:
        if self._turns._is_inside():
            raise EdgellmError(
                "this thread is in the midst of another call of this LLM: in a signal handler call only cancel() and "
                "close(), or let another thread make the call"
            )
        try:
            self._turns._threads[self.thread] = self
            self._turns._join(self)
            self.granted.acquire()
        except BaseException:  # Ctrl-C while waiting
            self._turns._leave(self)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            while self._turns._left:
                self._turns._left.popleft()()
        finally:
            self._turns._leave(self)
