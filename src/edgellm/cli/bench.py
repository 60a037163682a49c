"""``edgellm bench``: tokens per second, in the meaning of llama.cpp's llama-bench.

pp N: N random tokens go in as a prompt, in batches. tg N: N tokens go in one after another, each a step of
its own, from an empty context. Nothing is sampled. One untimed round warms up each test.
"""

from __future__ import annotations

import datetime
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click

from edgellm.cli import _model, _options
from edgellm.cli._text import number, print_json, say, table, version
from edgellm.store.names import megabytes


class Runner(Protocol):
    """The part of an engine that a measurement uses."""

    def open_seq(self) -> int:
        """A new, empty sequence."""

    def close_seq(self, seq: int) -> None:
        """Give it back."""

    def truncate(self, seq: int, n_tokens: int) -> Any:
        """Forget its tokens from *n_tokens* on."""

    def step(self, items: Sequence[tuple[int, Sequence[int], int, bool]]) -> Any:
        """Compute (sequence, tokens, outputs, sample) for each."""


@dataclass(frozen=True, slots=True)
class Test:
    """One row to be: *n_prompt* or *n_gen* tokens in each of *n_parallel* sequences."""

    n_prompt: int
    n_gen: int
    n_threads: int
    n_parallel: int

    @property
    def label(self) -> str:
        """llama-bench's name for it."""
        return f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"


class Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic since click 8.2 only
    """A list like ``128,512``."""

    name = "N[,N...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers, each from 0 to 2^20."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 128,512", param, ctx)
        if any(not 0 <= number <= 1 << 20 for number in numbers):
            self.fail(f"{value!r} has a number that is not from 0 to {1 << 20}", param, ctx)
        return numbers


@click.command("bench")
@click.argument("model")
@click.option(
    "-p", "--n-prompt", type=Numbers(), default="512", show_default=True, help="Tokens of the prompt; 0: no such test."
)
@click.option(
    "-n", "--n-gen", type=Numbers(), default="128", show_default=True, help="Tokens to generate; 0: no such test."
)
@click.option(
    "-t", "--threads", type=Numbers(), help="Threads to compute with.  [default: one per physical core we may use]"
)
@click.option(
    "-r", "--repetitions", type=click.IntRange(1, 1000), default=5, show_default=True, help="Timed rounds of each test."
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Sequences that run together; figures are their sum.",
)
@click.option("--batch", type=click.IntRange(1, 4096), default=512, show_default=True, help="Tokens in one step.")
@_options.as_json
def command(
    model: str, n_prompt: tuple[int, ...], n_gen: tuple[int, ...], threads: tuple[int, ...] | None,
    repetitions: int, parallel: int, batch: int, as_json: bool,
) -> None:  # fmt: skip
    """Measure how fast MODEL runs.

    The rows mean what llama-bench's mean: pp512 is a prompt of 512 tokens, tg128 the generation of 128
    tokens from an empty context; tokens are random and nothing is sampled. Lists like '-p 128,512 -t 1,2'
    give a row for each combination.
    """
    if not any(n_prompt) and not any(n_gen):
        raise click.UsageError("there is nothing to measure: -p and -n are both 0")
    if not all(1 <= n <= _options.MAX_THREADS for n in threads or ()):
        raise click.UsageError(f"-t must be from 1 to {_options.MAX_THREADS}")
    from edgellm.evaluation.chunks import needs_one_stack

    path = _model.locate(model)
    rows: list[dict[str, Any]] = []
    with _model.open_weights(path) as weights:
        needs_one_stack(weights)
        for n_threads in threads or (0,):
            longest = max(*n_prompt, *n_gen)
            with weights.engine(n_ctx=longest, n_seqs=parallel, n_batch=batch, n_threads=n_threads) as engine:
                n_used = engine.info().n_threads
                tests = [Test(n, 0, n_used, parallel) for n in n_prompt if n]
                tests += [Test(0, n, n_used, parallel) for n in n_gen if n]
                for test in tests:
                    say(f"{test.label}, {number(n_used, 'thread')}: {number(repetitions, 'round')}")
                    samples = measure(engine, test, weights.info.n_vocab, batch, repetitions)
                    rows.append(row(test, samples, _about(path, weights.info, batch)))
    if as_json:
        print_json(rows)
    else:
        click.echo(_table(rows))


def measure(
    engine: Runner, test: Test, n_vocab: int, batch: int, repetitions: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[int]:  # fmt: skip
    """Nanoseconds of each timed round."""
    choose = random.Random(1)  # noqa: S311 - any tokens will do, the same every time
    seqs = [engine.open_seq() for _ in range(test.n_parallel)]
    try:
        _round(engine, seqs, Test(test.n_prompt, min(test.n_gen, 1), 0, 0), n_vocab, batch, choose)
        samples = []
        for _ in range(repetitions):
            for seq in seqs:
                engine.truncate(seq, 0)
            began = clock()
            _round(engine, seqs, test, n_vocab, batch, choose)
            samples.append(max(clock() - began, 1))
        return samples
    finally:
        for seq in seqs:
            engine.close_seq(seq)


def _round(engine: Runner, seqs: Sequence[int], test: Test, n_vocab: int, batch: int, choose: random.Random) -> None:
    """Run one test once. Only the last token's logits are asked for, as a generation would."""
    if test.n_prompt:
        share = max(1, batch // len(seqs))
        for start in range(0, test.n_prompt, share):
            count = min(share, test.n_prompt - start)
            last = start + count == test.n_prompt
            for group in _groups(seqs, batch // count):
                engine.step([(seq, _tokens(choose, n_vocab, count), int(last), False) for seq in group])
    for _ in range(test.n_gen):
        for group in _groups(seqs, batch):
            engine.step([(seq, _tokens(choose, n_vocab, 1), 1, False) for seq in group])


def _groups(seqs: Sequence[int], size: int) -> list[Sequence[int]]:
    return [seqs[start : start + size] for start in range(0, len(seqs), max(size, 1))]


def _tokens(choose: random.Random, n_vocab: int, count: int) -> list[int]:
    return [choose.randrange(n_vocab) for _ in range(count)]


def row(test: Test, samples_ns: Sequence[int], about: dict[str, Any]) -> dict[str, Any]:
    """One row of the result, with llama-bench's names; averages are over the rounds."""
    n_tokens = (test.n_prompt + test.n_gen) * test.n_parallel
    rates = [n_tokens * 1e9 / sample for sample in samples_ns]
    return {
        **about,
        "test": test.label,
        "n_prompt": test.n_prompt,
        "n_gen": test.n_gen,
        "n_parallel": test.n_parallel,
        "n_threads": test.n_threads,
        "avg_ns": round(statistics.fmean(samples_ns)),
        "stddev_ns": round(_spread(samples_ns)),
        "avg_ts": round(statistics.fmean(rates), 3),
        "stddev_ts": round(_spread(rates), 3),
        "samples_ns": list(samples_ns),
        "samples_ts": [round(rate, 3) for rate in rates],
    }


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _about(path: Path, info: Any, batch: int) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "build": f"edgellm {version()}",
        "model": str(path),
        "model_type": f"{info.architecture} {info.type}",
        "model_size": info.n_bytes,
        "model_n_params": info.n_params,
        "n_batch": batch,
        "test_time": now,
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [["MODEL", "SIZE", "PARAMS", "THREADS", "PARALLEL", "TEST", "TOKENS/S"]]
    for item in rows:
        rate = f"{item['avg_ts']:.2f} ± {item['stddev_ts']:.2f}"
        params = f"{item['model_n_params'] / 1e6:.1f} M"
        counts = [str(item["n_threads"]), str(item["n_parallel"])]
        lines.append([item["model_type"], megabytes(item["model_size"]), params, *counts, item["test"], rate])
    return table(lines, right={1, 2, 3, 4, 6})
