"""What was proven of a wheel, as it comes: said, and kept for proofs.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from common import ROOT, parallel, say

FIXTURE = ROOT / "tests" / "data" / "cross" / "mixed.gguf"  # a tiny model with every weight type


class Job(NamedTuple):
    """A proof to be made: its name, the processor, and what makes it and says what is wrong, and what else there is."""

    check: str
    cpu: str
    do: Callable[[], tuple[str, str]]


class Proofs:
    """Results, in the order in which they came."""

    def __init__(self, target: Mapping[str, Any]) -> None:
        self.target, self.results = target, list[dict[str, str]]()

    def add(self, check: str, cpu: str, fault: str, detail: str = "") -> None:
        """A proof that went well when *fault* is empty."""
        self._keep(check, cpu, "failed" if fault else "passed", fault or detail)

    def make(self, jobs: Sequence[Job]) -> None:
        """Proofs in parallel, kept in their order."""
        parallel(lambda job: job.do(), jobs, lambda job, said: self.add(job.check, job.cpu, *said))

    def note(self, check: str, result: str, detail: str) -> None:
        """What is neither passed nor failed: "built" or "not run", and why."""
        self._keep(check, "", result, detail)

    def _keep(self, check: str, cpu: str, result: str, detail: str) -> None:
        found = {"check": check, "cpu": cpu, "result": result, "detail": detail}
        self.results.append({key: value for key, value in found.items() if value})
        say(f"  {check}{f' on {cpu}' if cpu else ''}: {detail or result}")
