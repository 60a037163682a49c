"""The measuring itself: rounds over conditions, figures and peers, each timing beside a reading of the machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import process
from bench.gguf_header import read_header
from bench.machine import Machine, Neighbours
from bench.native import Llama
from bench.peer import Peer, Runner, Worker, WorkerFailed
from bench.roofline import Roofline


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table. *kind* as the workers know it."""

    name: str
    kind: str
    n: int
    depth: int = 0
    seqs: int = 1

    @property
    def title(self) -> str:
        """For people."""
        if self.kind == "prefill":
            return f"prefill {self.n}"
        if self.kind == "together":
            return f"{self.seqs} sequences together"
        return f"decode {self.n} at depth {self.depth}" if self.depth else f"decode {self.n}"


FIGURES = {
    "prefill": Figure("prefill", "prefill", 512),
    "decode": Figure("decode", "decode", 64),
    "deep": Figure("deep", "decode", 64, depth=2048),
    "together": Figure("together", "together", 32, depth=32, seqs=8),
}
QUICK = {
    "prefill": Figure("prefill", "prefill", 64),
    "decode": Figure("decode", "decode", 8),
    "deep": Figure("deep", "decode", 8, depth=256),
    "together": Figure("together", "together", 4, depth=8, seqs=8),
}
PROCESS_FIGURES = ("start", "memory")
NAMES = (*FIGURES, *PROCESS_FIGURES)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, from the command line."""

    threads: int
    rounds: int
    figures: dict[str, Figure]
    process_figures: tuple[str, ...]
    beside: tuple[int, ...]  # busy neighbours: 0 is quiet
    seconds: float  # of each reading of the machine
    limit: float  # seconds a timing beside neighbours may take, between two steps
    memory_tokens: int


@dataclass
class Sample:
    """One timing, or one memory reading (then *rate* is 0 and *memory* is set)."""

    figure: str
    beside: int
    peer: str
    variant: str
    round: int
    rate: float = 0.0  # tokens/s; for "start" seconds
    share: float | None = None  # of this minute's bandwidth (decode) or arithmetic peak (prefill)
    seconds: float = 0.0
    tokens: int = 0
    checksum: str = ""
    machine: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)


@dataclass
class Result:
    """All that was seen of one model."""

    model: str
    path: str
    mix: str
    n_params: int
    bytes_per_token: float
    samples: list[Sample] = field(default_factory=list)
    fair: dict[int, list[float]] = field(default_factory=dict)  # neighbours -> share of the quiet speed, per round
    flags: dict[str, str] = field(default_factory=dict)  # peer -> versions and settings measured
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


class Session:
    """One model, all peers."""

    def __init__(self, path: Path, name: str, plan: Plan, peers: Sequence[Peer], llama: Llama | None) -> None:
        header = read_header(path)
        self.path = path
        self.plan = plan
        self.roofline = Roofline(header)
        self.llama = llama
        self.machine = Machine()
        self.neighbours = {n: Neighbours(n) for n in plan.beside}
        self.runners = {peer.name: Runner(peer, path, plan.threads) for peer in peers}
        n_params = sum(tensor.n_elements for tensor in header.tensors)
        self.result = Result(name, str(path), header.type_mix(), n_params, self.roofline.decode_bytes(0, 1))

    def run(self) -> Result:
        """Probe, then all rounds, then memory. Ends every program it started, whatever happens."""
        try:
            if self.plan.figures:
                self._probe()
            for number in range(self.plan.rounds):
                for n in self.plan.beside:
                    self._condition(number, n)
            if "memory" in self.plan.process_figures:
                self._memory()
        finally:
            for runner in self.runners.values():
                runner.close()
            for neighbours in self.neighbours.values():
                neighbours.close()
            self.machine.close()
        for name, runner in self.runners.items():
            self.result.notes += [f"{name}: {why}" for why in runner.dropped.values()]
        return self.result

    def _probe(self) -> None:
        for name, runner in self.runners.items():
            say(f"{name}: opening")
            runner.probe(min(128, max(f.n for f in self.plan.figures.values())), 16)
            chosen = {kind: runner.best(kind) for kind in ("prefill", "decode")}
            about = ", ".join(
                f"{kind}: {variant or 'default'}" for kind, variant in chosen.items() if variant is not None
            )
            self.result.flags[name] = about or "failed"

    def _condition(self, number: int, n: int) -> None:
        say(f"round {number + 1} of {self.plan.rounds}, beside {n}")
        if n:
            quiet = self.machine.spin(self.plan.threads, self.plan.seconds)
            with self.neighbours[n]:
                beside = self.machine.spin(self.plan.threads, 10 * self.plan.seconds)
            self.result.fair.setdefault(n, []).append(beside / quiet)
        for figure in self.plan.figures.values():
            names = list(self.runners)
            turn = number % len(names)  # nobody is always first
            for name in names[turn:] + names[:turn]:
                self._timing(figure, n, number, self.runners[name])
        if "start" in self.plan.process_figures:
            self._starts(number, n)

    def _timing(self, figure: Figure, n: int, number: int, runner: Runner) -> None:
        kind = "prefill" if figure.kind == "prefill" else "decode"
        seen: dict[str, float] = {}

        def timed(worker: Worker) -> dict[str, Any]:
            worker.ask(do="prepare", figure=figure.kind, n=figure.n, depth=figure.depth, seqs=figure.seqs, seed=number)
            seen.update(self._look())
            with self.neighbours[n]:
                return worker.ask(do="go", limit=self.plan.limit if n else 0)

        try:
            worker, answer = runner.run(kind, timed)
        except WorkerFailed as error:
            say(f"{runner.peer.name} {figure.name}: {error}")
            return
        self.result.flags.setdefault(f"{runner.peer.name} version", f"{worker.version} ({worker.flags})")
        rate = answer["tokens"] / answer["seconds"]
        say(f"  {figure.name:9} {runner.peer.name:13} {rate:9.1f} tokens/s ({answer['seconds']:.1f} s)")
        self.result.samples.append(
            Sample(
                figure.name, n, runner.peer.name, worker.flags, number, rate,
                self._share(figure, answer, seen), answer["seconds"], answer["tokens"], answer["checksum"], seen,
            )
        )  # fmt: skip

    def _look(self) -> dict[str, float]:
        """Read the file through a mapping, and multiply: what the machine gives right now."""
        machine, threads, seconds = self.machine, self.plan.threads, self.plan.seconds
        seen = {
            "read_1": machine.read(self.path, 1, seconds),
            "read": machine.read(self.path, threads, seconds),
            "int8": machine.int8(threads, seconds / 2),
            "f32": machine.f32(threads, seconds / 2),
        }
        time.sleep(0.05)  # the reading's threads are gone, the workers' are asleep
        return seen

    def _share(self, figure: Figure, answer: dict[str, Any], seen: dict[str, float]) -> float:
        if figure.kind == "prefill":
            return self.roofline.prefill_seconds(figure.n, seen["int8"], seen["f32"]) / float(answer["seconds"])
        n_bytes = self.roofline.decode_bytes(figure.depth, answer["steps"], figure.seqs)
        return float(n_bytes * answer["steps"] / answer["seconds"] / seen["read"])

    # ---- whole processes -------------------------------------------------------------------------------------------

    def _starts(self, number: int, n: int) -> None:
        text = self._rendered()
        threads = self.plan.threads
        commands: list[tuple[str, str, list[str], dict[str, str]]] = []
        if "edgellm" in self.runners:
            raw = text == process.PROMPT
            command = process.edgellm_command(self.path, threads, raw)
            commands.append(("edgellm", "", command, process.edgellm_environment()))
        if self.llama and "llama.cpp" in self.runners:
            for warmup in (True, False):
                command = process.completion_command(self.llama, self.path, threads, text, warmup)
                commands.append(("llama.cpp" if warmup else "llama.cpp -nw", "", command, {}))
        turn = number % max(len(commands), 1)
        for name, variant, command, environment in commands[turn:] + commands[:turn]:
            try:
                if number == 0 and n == 0:
                    process.first_byte(command, environment)  # warms the file cache of its programs
                with self.neighbours[n]:
                    seconds = process.first_byte(command, environment)
            except WorkerFailed as error:
                self._note(f"start: {error}")
                continue
            self.result.samples.append(Sample("start", n, name, variant, number, seconds, seconds=seconds))

    def _rendered(self) -> str:
        """The prompt in the model's template, from edgellm; the plain prompt without a template or edgellm."""
        if "edgellm" not in self.runners:
            return process.PROMPT
        if not hasattr(self, "_text"):
            try:
                self._text = str(self.runners["edgellm"].worker("decode").ask(do="render", text=process.PROMPT)["text"])
            except WorkerFailed as error:
                self._note(f"start without a template: {error}")
                self._text = process.PROMPT
        return self._text

    def _memory(self) -> None:
        for name, runner in self.runners.items():
            variant = runner.best("decode")
            if variant is None:
                variant = runner.peer.variants[0]
            runner.close()
            say(f"{name}: memory")
            try:
                seen = process.memory(runner.peer, variant, self.path, self.plan.threads, self.plan.memory_tokens)
            except WorkerFailed as error:
                self._note(f"memory: {error}")
                continue
            self.result.samples.append(Sample("memory", 0, name, variant, 0, memory=seen))

    def _note(self, text: str) -> None:
        if text not in self.result.notes:
            self.result.notes.append(text)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)
