"""
What every worker shares: the lines it speaks, and how a figure is taken from an engine.

A worker is a program of its own, so that no peer lives in another's process. It reads one JSON object a line and
answers each with one:

    {"do": "open", "model": PATH, "threads": N, "variant": NAME}  -> {"version", "flags"}
    {"do": "prepare", "figure": FIGURE, "n": N, "depth": D, "seqs": S, "seed": X}  -> {}      the untimed part
    {"do": "go", "limit": SECONDS}  -> {"tokens", "seconds", "checksum"}                      the timed part
    {"do": "fill", "tokens": N}  -> {}      N tokens in an f16 cache of that size, for the memory figure
    {"do": "score", "tokens": IDS, "chunk": N, "out": PATH} -> {}    logits after each token, N in a step, F32 cache, as
                                                                     float32 in a new file; edgellm and llama.cpp only
    {"do": "render", "text": TEXT}  -> {"text"}       TEXT as one user message in the model's chat template
    {"do": "quit"}

Figures: "prefill" (n tokens in one go, the last one's logits), "decode" (n steps of one token, at most *limit*
seconds, after *depth* tokens), "together" (n steps of one token in each of S sequences that hold *depth* tokens).
Every repetition gets fresh random tokens from its seed; all peers get the same ones, so that two repetitions with one
seed must give one checksum (CRC-32 of the last logits of each sequence), whoever else is running.

A failure is answered with {"error": TEXT}; the worker lives on. This module imports nothing heavy, so that the memory
figure is the engine's.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

Item = tuple[int, Sequence[int]]  # a sequence and the tokens it gets; the last one's logits are wanted


class Engine(Protocol):
    """What a peer implements: a loaded model that computes steps."""

    version: str
    flags: str
    n_vocab: int

    def shape(self, n_seqs: int, n_ctx: int) -> None:
        """Make room for that many sequences of that many tokens each, f16 cache, all of them empty."""

    def clear(self) -> None:
        """Forget all tokens of all sequences."""

    def step(self, items: Sequence[Item]) -> None:
        """Append each item's tokens and compute to the end, with the logits of the last token of each."""

    def logits(self, i: int) -> bytes:
        """The logits of the last step's item *i*, as float32."""


class Scorer(Engine, Protocol):
    """An engine whose accuracy can be measured as well."""

    def shape(self, n_seqs: int, n_ctx: int, kv_type: str = "f16") -> None:
        """As Engine's, with a cache of "f16" or "f32"."""

    def rows(self, tokens: Sequence[int]) -> bytes:
        """Append at most 512 tokens to the first sequence; the logits after each of them, as float32."""


class Measure:
    """One figure at a time: prepare, then go."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._shape = (0, 0)
        self._warm: set[str] = set()
        self._steps: list[list[Item]] = []

    def prepare(self, figure: str, n: int, depth: int, seqs: int, seed: int) -> None:
        """Do everything before the clock starts: room, warm-up, the tokens of *depth*."""
        numbers = random.Random(seed)
        seqs = seqs if figure == "together" else 1
        self._reshape(seqs, depth + n + 8)
        if figure not in self._warm:  # code, scratch memory and graph plans; the file's pages are warm already
            self.engine.step([(s, self._tokens(numbers, n if figure == "prefill" else 8)) for s in range(seqs)])
            self.engine.step([(s, self._tokens(numbers, 1)) for s in range(seqs)])
            self._warm.add(figure)
        numbers = random.Random(seed)  # the same tokens with and without a warm-up before them
        self.engine.clear()
        if depth:
            for s in range(seqs):
                self.engine.step([(s, self._tokens(numbers, depth))])
        if figure == "prefill":
            self._steps = [[(0, self._tokens(numbers, n))]]
        else:
            self._steps = [[(s, self._tokens(numbers, 1)) for s in range(seqs)] for _ in range(n)]

    def go(self, limit: float) -> dict[str, Any]:
        """Run what was prepared; stop early after *limit* seconds, between two steps."""
        step, done, last = self.engine.step, 0, 0
        began = time.perf_counter()
        for items in self._steps:
            step(items)
            done += sum(len(tokens) for _, tokens in items)
            last += 1
            if limit and time.perf_counter() - began >= limit:
                break
        seconds = time.perf_counter() - began
        checksum = 0
        for i in range(len(self._steps[0])):
            checksum = zlib.crc32(self.engine.logits(i), checksum)
        return {"tokens": done, "steps": last, "seconds": seconds, "checksum": f"{checksum:08x}"}

    def fill(self, tokens: int) -> None:
        """Put *tokens* tokens into a cache of just that size: prompt first, the last ones as answer."""
        numbers = random.Random(tokens)
        self._reshape(1, tokens)
        self.engine.clear()
        self.engine.step([(0, self._tokens(numbers, tokens - 16))])
        for _ in range(16):
            self.engine.step([(0, self._tokens(numbers, 1))])
        self.engine.logits(0)

    def score(self, tokens: list[int], chunk: int, out: str) -> None:
        """The logits after each of *tokens*, in a file."""
        engine = cast(Scorer, self.engine)
        engine.shape(1, -(-len(tokens) // 256) * 256, "f32")
        self._shape = (0, 0)
        with Path(out).open("wb") as file:
            for at in range(0, len(tokens), chunk):
                file.write(engine.rows(tokens[at : at + chunk]))

    def _reshape(self, n_seqs: int, n_ctx: int) -> None:
        n_ctx = -(-n_ctx // 256) * 256
        if self._shape != (n_seqs, n_ctx):
            self.engine.shape(n_seqs, n_ctx)
            self._shape = (n_seqs, n_ctx)
            self._warm.clear()

    def _tokens(self, numbers: random.Random, n: int) -> list[int]:
        # Ids from 0 on are control tokens in most vocabularies; the model does not care, but a random word is likelier.
        return [numbers.randrange(min(256, self.engine.n_vocab // 2), self.engine.n_vocab) for _ in range(n)]


class Replies:
    """The answers' channel: standard output as it was at the start, which the engine then cannot write into."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, answer: dict[str, Any]) -> None:
        """One line, at once."""
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()


def serve(load: Any, measure: Any = Measure) -> None:
    """Answer standard input's commands. *load* (model, threads, variant) gives the Engine for *measure*."""
    replies = Replies()
    taker: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        do = command.pop("do")
        try:
            if do == "quit":
                break
            if do == "open":
                engine = load(command["model"], command["threads"], command["variant"])
                taker = measure(engine)
                replies.send({"version": engine.version, "flags": engine.flags})
            elif do == "render":
                replies.send({"text": taker.engine.render(command["text"])})
            else:
                replies.send(getattr(taker, do)(**command) or {})
        except Exception as error:  # noqa: BLE001 - the other end decides what a failed figure means
            replies.send({"error": f"{type(error).__name__}: {error}"})
