"""The machine at this moment (machine.c), and its busy neighbours."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.folders import ROOT, cache

SOURCE = ROOT / "bench" / "machine.c"


def program() -> Path:
    """machine.c, compiled for this machine; compiled again when the source or the processor changed."""
    text = SOURCE.read_bytes()
    name = hashlib.sha256(text + cpu_name().encode()).hexdigest()[:12]
    target = cache() / f"machine-{name}"
    if not target.exists():
        part = target.with_name(f"{target.name}.{os.getpid()}")
        compiler = os.environ.get("CC", "cc")
        command = [compiler, "-std=gnu11", "-O3", "-march=native", "-pthread", str(SOURCE), "-o", str(part)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        part.replace(target)
    return target


def cpu_name() -> str:
    """The processor's name for itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class Machine:
    """The compiled program, waiting for commands; idle it costs nothing."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(program())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.used: dict[str, str] = {}  # command -> the instruction that did it

    def _ask(self, what: str, threads: int, seconds: float, path: Path | None = None) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{what} {threads} {seconds}" + (f" {path}" if path else "") + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the program has ended"}
        if "error" in answer:
            raise SystemExit(f"measuring {what}: {answer['error']}")
        self.used[what] = answer["with"]
        return float(answer["per_second"])

    def read(self, path: Path, threads: int, seconds: float) -> float:
        """Bytes a second through a mapping of the file."""
        return self._ask("read", threads, seconds, path)

    def int8(self, threads: int, seconds: float) -> float:
        """8-bit multiply-adds a second, from registers."""
        return self._ask("int8", threads, seconds)

    def f32(self, threads: int, seconds: float) -> float:
        """Float multiply-adds a second, from registers."""
        return self._ask("f32", threads, seconds)

    def spin(self, threads: int, seconds: float) -> float:
        """Rounds of an arithmetic loop a second."""
        return self._ask("spin", threads, seconds)

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Neighbours:
    """
    Processes that are busy all the time: arithmetic loops, no memory traffic, nice 0, no affinity, in our session (so
    that the kernel's grouping by session does not favour either side). They are stopped except inside ``with``.
    """

    SETTLE = 0.25  # seconds for the kernel to spread the woken processes over the cores

    def __init__(self, n: int) -> None:
        self.n = n
        self._processes = [subprocess.Popen([str(program()), "busy"]) for _ in range(n)]
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            process.send_signal(number)

    def __enter__(self) -> Neighbours:
        if self.n:
            self._signal(signal.SIGCONT)
            time.sleep(self.SETTLE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()


def _ticks() -> tuple[int, int]:
    """(idle, all) ticks of all cores since the start, or zeros where the system does not say."""
    try:
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0, 0
    return fields[3] + fields[4], sum(fields)


def cores_in_use(seconds: float = 1.5) -> float:
    """Cores' worth of work that others do now (time stolen by the host counts)."""
    idle, total = _ticks()
    time.sleep(seconds)
    idle2, total2 = _ticks()
    return (1 - (idle2 - idle) / max(total2 - total, 1)) * (os.cpu_count() or 1) if total2 > total else 0.0


def check_quiet(force: bool) -> str:
    """
    What the machine does besides us, in words for the report. The load average is only told: it remembers the run
    before this one for a minute.

    Raises:
        SystemExit: Something else is busy and *force* is not given.
    """
    load = os.getloadavg()[0]
    used = cores_in_use(3.0)
    text = f"load average {load:.2f}, {used:.2f} cores in use by others before the start"
    if used > 0.15:
        if not force:
            raise SystemExit(
                f"this machine is not quiet: {text}. Figures would not mean anything: "
                "stop what runs (or --force, for a trial)"
            )
        text += " - NOT QUIET: the figures below mean little"
    return text
