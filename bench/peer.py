"""Starts the workers of peers/ and talks to them; finds out which of a peer's settings is its fastest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import native
from bench.folders import ROOT, cache, edgellm_folder

Environment = Callable[[str], dict[str, str]]


class WorkerFailed(Exception):  # noqa: N818 - what happened reads better than WorkerFailedError
    """A worker answered with an error, or died."""


@dataclass(frozen=True, slots=True)
class Peer:
    """
    A program to measure.

    Args:
        name: As the tables have it.
        module: Its worker under bench.peers.
        variants: Settings to choose from, its default first; the fastest is measured.
        python: The interpreter that has it.
        environment: Variables a variant wants.
    """

    name: str
    module: str
    variants: tuple[str, ...]
    python: Callable[[], Path]
    environment: Environment = lambda variant: {}


def _llama_environment(variant: str) -> dict[str, str]:
    llama = native.llama()
    return {
        "EDGELLM_BENCH_SHIM": str(llama.shim()),
        "EDGELLM_BENCH_SHIM_VERSION": llama.version,
        **llama.environment(variant),
    }


def _llama_variants() -> tuple[str, ...]:
    return ("", "-fa0", "omp", "omp -fa0") if native.llama().omp else ("", "-fa0")


def peers(names: list[str]) -> list[Peer]:
    """The named ones, in the tables' order; the first call may build and install them."""
    makers: dict[str, Callable[[], Peer]] = {
        "edgellm": lambda: Peer("edgellm", "edgellm_worker", ("",), lambda: Path(sys.executable)),
        "llama.cpp": lambda: Peer(
            "llama.cpp", "llama_worker", _llama_variants(), lambda: Path(sys.executable), _llama_environment
        ),
        "ik_llama.cpp": lambda: Peer("ik_llama.cpp", "ik_worker", ("", "-rtr", "-fa", "-rtr -fa"), native.python),
        "xllamacpp": lambda: Peer("xllamacpp", "xllamacpp_worker", ("",), native.python),
    }
    unknown = set(names) - set(makers)
    if unknown:
        raise SystemExit(f"no peer is called {', '.join(sorted(unknown))}: there are {', '.join(makers)}")
    return [make() for name, make in makers.items() if name in names]


class Worker:
    """One running worker with one model open."""

    def __init__(self, peer: Peer, variant: str, model: Path, threads: int) -> None:
        self.peer = peer
        self.variant = variant
        self._log = cache() / f"{peer.module}.log"
        environment = {**os.environ, **peer.environment(variant)}
        path = [str(ROOT), str(edgellm_folder())] if peer.name == "edgellm" else [str(ROOT)]
        environment["PYTHONPATH"] = os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(peer.python()), "-m", f"bench.peers.{peer.module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=ROOT,
            )
        try:
            about = self.ask(do="open", model=str(model), threads=threads, variant=variant)
        except WorkerFailed:
            self.close()
            raise
        self.version: str = about["version"]
        self.flags: str = about["flags"]

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, **command: Any) -> dict[str, Any]:
        """
        Send a command, wait for the answer.

        Raises:
            WorkerFailed: It answered with an error, or died; the text says where its log is.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(
                f"{self.peer.name} {self.variant}: ended with {self._process.wait()} (see {self._log.name})"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{self.peer.name} {self.variant}: {answer['error']} (see {self._log.name})")
        return answer

    def close(self) -> None:
        """End it, politely first."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass
class Runner:
    """
    A peer on one model: its fastest variant per kind of figure, each with a worker.

    A variant that fails is dropped for good, and the next best takes its place.
    """

    peer: Peer
    model: Path
    threads: int
    speeds: dict[str, dict[str, float]] = field(default_factory=dict)  # kind -> variant -> tokens/s of the probe
    dropped: dict[str, str] = field(default_factory=dict)  # variant -> why
    _workers: dict[str, Worker] = field(default_factory=dict)

    def probe(self, n_prefill: int, n_decode: int) -> None:
        """Try every variant at a short prompt and a few tokens; twice, the better counts."""
        for variant in self.peer.variants:
            for kind, n in (("prefill", n_prefill), ("decode", n_decode)):
                if len(self.peer.variants) == 1:
                    self.speeds.setdefault(kind, {})[variant] = 1.0
                    continue
                try:
                    speed = max(self._once(variant, kind, n, seed) for seed in (1, 2))
                except WorkerFailed as error:
                    self._drop(variant, str(error))
                    break
                self.speeds.setdefault(kind, {})[variant] = speed
        for variant in set(self._workers) - {self.best("prefill"), self.best("decode")}:
            self._workers.pop(variant).close()

    def best(self, kind: str) -> str | None:
        """The fastest variant that has not failed; None when none is left."""
        left = {v: s for v, s in self.speeds.get(kind, {}).items() if v not in self.dropped}
        return max(left, key=lambda variant: left[variant]) if left else None

    def worker(self, kind: str) -> Worker:
        """
        The worker for a figure of that kind ("prefill" or "decode").

        Raises:
            WorkerFailed: No variant is left.
        """
        while (variant := self.best(kind)) is not None:
            try:
                return self._worker(variant)
            except WorkerFailed as error:  # noqa: PERF203 - a start of seconds
                self._drop(variant, str(error))
        raise WorkerFailed("; ".join(self.dropped.values()) or f"{self.peer.name} was not probed")

    def run(self, kind: str, timed: Callable[[Worker], Any]) -> tuple[Worker, Any]:
        """Call *timed* with the best worker; when that one fails, with the next best."""
        while True:
            worker = self.worker(kind)
            try:
                return worker, timed(worker)
            except WorkerFailed as error:
                self._drop(worker.variant, str(error))

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def _worker(self, variant: str) -> Worker:
        if variant not in self._workers:
            self._workers[variant] = Worker(self.peer, variant, self.model, self.threads)
        return self._workers[variant]

    def _drop(self, variant: str, why: str) -> None:
        self.dropped[variant] = why
        if variant in self._workers:
            self._workers.pop(variant).close()

    def _once(self, variant: str, kind: str, n: int, seed: int) -> float:
        worker = self._worker(variant)
        worker.ask(do="prepare", figure=kind, n=n, depth=0, seqs=1, seed=seed)
        answer = worker.ask(do="go", limit=0)
        return float(answer["tokens"] / max(answer["seconds"], 1e-9))
