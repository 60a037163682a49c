"""Figures of whole processes: the time to the first byte on standard output, and private memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.folders import edgellm_folder
from bench.native import Llama
from bench.peer import Peer, Worker, WorkerFailed

PROMPT = "Name three colours of the rainbow."


def first_byte(command: list[str], environment: dict[str, str] | None = None) -> float:
    """
    Seconds from starting *command* to its first byte on standard output; it then runs to its end.

    Raises:
        WorkerFailed: It ended without a byte.
    """
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
        )
        assert process.stdout
        with process.stdout as out:
            byte = os.read(out.fileno(), 1)
            seconds = time.perf_counter() - began
            out.read()  # so that it ends by itself, as a user's would
        process.wait()
        errors.seek(0)
        tail = errors.read().decode("utf-8", "replace")[-300:].strip()
    if not byte:
        raise WorkerFailed(f"{command[0]} wrote nothing and ended with {process.returncode}: {tail}")
    return seconds


def edgellm_command(model: Path, threads: int, raw: bool) -> list[str]:
    """The program as a user starts it."""
    script = Path(sys.executable).with_name("edgellm")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "edgellm"]
    options = ["--temp", "0", "-n", "1", "--threads", str(threads)] + (["--raw"] if raw else [])
    return [*start, "run", str(model), PROMPT, *options]


def edgellm_environment() -> dict[str, str]:
    """
    So that ``python -m edgellm`` finds the package that the worker measures, with bytecode, as an installed one has
    it: without, Python's compiler takes 40 ms of a start, and some machines forbid writing it.
    """
    return {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPATH": os.pathsep.join([str(edgellm_folder()), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def completion_command(llama: Llama, model: Path, threads: int, text: str, warmup: bool) -> list[str]:
    """llama-completion with the text that edgellm's template makes, as is."""
    command = [str(llama.tool("llama-completion")), "-m", str(model), "-p", text, "-n", "1", "--temp", "0"]
    command += ["-t", str(threads), "-no-cnv", "--no-display-prompt", "--simple-io", "-c", "2048", "-lv", "1"]
    return command if warmup else [*command, "--no-warmup"]


# ---- memory ----------------------------------------------------------------------------------------------------------


def private_bytes(pid: int) -> dict[str, int]:
    """
    Memory that only this process has: "private_dirty", "anonymous" and "private", the larger of the two.

    A dirty page of anonymous memory is in both lines of smaps_rollup, so their sum would count nearly all of it twice;
    what stands in one line only (file pages written to, clean anonymous pages) is small.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(kb) * 1024 for name, kb in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    dirty, anonymous = found.get("Private_Dirty", 0), found.get("Anonymous", 0)
    return {"private_dirty": dirty, "anonymous": anonymous, "private": max(dirty, anonymous)}


class Watch:
    """Looks at a process every 20 ms; ``with Watch(pid) as w: ...`` then ``w.peak``."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak = 0

    def _look(self) -> None:
        while not self._done.wait(0.02):
            try:
                self.peak = max(self.peak, private_bytes(self._pid)["private"])
            except OSError:  # noqa: PERF203 - every 20 ms
                return

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def memory(peer: Peer, variant: str, model: Path, threads: int, tokens: int) -> dict[str, int]:
    """
    A fresh worker with *tokens* tokens in an f16 cache: its private memory then, and the peak on the way there.

    The interpreter of the worker counts, for every peer alike.

    Raises:
        WorkerFailed: The worker failed.
    """
    worker = Worker(peer, variant, model, threads)
    try:
        with Watch(worker.pid) as watch:
            worker.ask(do="fill", tokens=tokens)
        now = private_bytes(worker.pid)
        status = Path(f"/proc/{worker.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        resident = int(found.group(1)) * 1024 if found else 0
        return {**now, "peak_private": max(watch.peak, now["private"]), "peak_resident": resident}
    finally:
        worker.close()
