"""What every source of models offers, and which class reads which spec."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgellm.store.faults import Offline
from edgellm.store.partial import Partial


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is: *stage* is ``wait``, ``download``, ``unpack`` or ``verify``; counts are bytes."""

    stage: str
    done: int = 0
    total: int | None = None


Report = Callable[[Progress], None]


class Source(Protocol):
    """A place that gives one file."""

    n_bytes: int | None  # of the finished file; None until `prepare`, or when nobody says
    sha256: str | None  # likewise
    extra_bytes: int  # disk space needed beside the finished file while it arrives

    @property
    def identity(self) -> str:
        """Says which bytes these are: equal for two sources only if one may continue the other's download."""

    @property
    def where(self) -> str:
        """The place, for people: ``the Python package index``."""

    def prepare(self) -> None:
        """Ask the place for size and digest, where the catalog did not say them.

        Raises:
            DownloadFailed: It does not answer or has no such file.
        """

    def fetch(self, partial: Partial, report: Report) -> None:
        """Append to *partial* what it lacks; on return it is whole.

        Raises:
            DownloadFailed: The place did not give the bytes.
            OSError: The disk did not take them.
        """


def check_online(what: str) -> None:
    """Raise unless the network may be used.

    Raises:
        Offline: EDGELLM_OFFLINE is set to anything but 0.
    """
    if os.environ.get("EDGELLM_OFFLINE", "0") not in ("", "0"):
        raise Offline(f"{what} is not in the local store and EDGELLM_OFFLINE forbids fetching it: unset it to pull")
