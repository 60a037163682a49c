"""
Who holds a part of the cache, and waiting for some of it.

A cache may hold fewer tokens than its sequences could want. Then calls of several threads wait for each other, and when
all that hold something wait, the newest of them gives back what it has: the oldest always gets on, so all end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from edgellm.errors import CacheFull, EdgellmError

Check = Callable[[], None]
POLL = 0.5  # seconds; only a holder whose thread ended without a word takes that long to be noticed


class Room:
    """Calls that hold sequences, by the thread that last worked on each, the oldest first."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._releases = 0
        self._ends = 0  # of releases: not by standing back
        self._holders: dict[Any, int] = {}
        self._waiting: dict[int, Any] = {}  # thread: the call it waits in, with what it holds
        self._standing_back: dict[int, Any] = {}

    def has_lock(self) -> bool:
        """Whether this thread is in one of these functions, and not waiting there: a signal handler may ask."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # as Condition does

    def holds(self, call: Any) -> bool:
        """Whether *call* has sequences."""
        return call in self._holders

    def hold(self, call: Any) -> None:
        """*call* has sequences, and this thread works on it."""
        with self._changed:
            self._holders[call] = threading.get_ident()

    def let_go(self, call: Any) -> None:
        """*call* has given sequences or blocks back, maybe all it had."""
        with self._changed:
            self._holders.pop(call, None)
            self._releases += 1
            self._ends += 1
            self._changed.notify_all()

    @property
    def busy(self) -> bool:
        """Whether a call has sequences."""
        return bool(self._holders or self._standing_back)

    @property
    def releases(self) -> int:
        """How often something was given back."""
        return self._releases

    def wake(self) -> None:
        """Let those who wait look again, and check what they were told to; at the latest they do after POLL."""
        if self.has_lock():  # a signal handler, maybe in the midst of notify_all()
            return
        with self._changed:
            self._changed.notify_all()

    def wait(self, call: Any, seen: int, error: CacheFull, check: Check) -> bool:
        """
        Wait until something is given back after *seen*.

        Args:
            call: Who waits.
            seen: `releases` before *call* found no room.
            error: What it found.
            check: Raises when there is nothing to wait for any more.

        Returns:
            False: there may be room. True: everyone waits, and *call* is to give back all it holds (see `stand_back`).

        Raises:
            CacheFull: Nobody else will give anything back: the rest is held by this thread's own unfinished streams.
            EdgellmError: This thread waits already, in a call that a signal handler has interrupted.
        """
        me = self._first_wait()
        with self._changed:
            self._waiting[me] = call
            self._changed.notify_all()  # for whoever is the one to give now
            try:
                while self._releases == seen:
                    check()
                    others = [thread for holder, thread in list(self._holders.items()) if holder is not call]
                    if all(thread in self._waiting or thread in self._standing_back for thread in others):
                        givers = [holder for holder in list(self._holders) if holder in self._waiting.values()]
                        if givers in ([], [call]):
                            hint = "; unfinished streams hold the rest: finish or close them" if others else ""
                            raise CacheFull(f"{error}{hint}") from None
                        if givers[-1] is call and len(givers) > 1:
                            return True
                    self._changed.wait(POLL)
                return False
            finally:
                del self._waiting[me]

    def stand_back(self, call: Any, check: Check) -> None:
        """
        *call* has emptied its sequences: wait until another gives something back, or nobody else holds anything.

        Others that stand back do not count: what they gave is for those who still wait.
        """
        me = self._first_wait()
        with self._changed:
            self._standing_back[me] = call
            self._holders.pop(call, None)
            self._releases += 1
            self._changed.notify_all()
            seen = self._ends
            try:
                while self._ends == seen and any(thread != me for thread in list(self._holders.values())):
                    check()
                    self._changed.wait(POLL)
                self._holders[call] = me
            finally:
                del self._standing_back[me]

    def _first_wait(self) -> int:
        """This thread, if it does not wait already."""
        me = threading.get_ident()
        if me in self._waiting or me in self._standing_back:
            raise EdgellmError(
                "this thread waits for room in the cache already, in the call that a signal handler has interrupted: "
                "let another thread make the handler's call"
            )
        return me
