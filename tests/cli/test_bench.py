"""`edgellm bench`: which tokens run, and that rows mean what llama-bench's mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from edgellm.cli import _model, bench

Cli = Callable[..., Any]


class FakeEngine:
    """Counts the tokens of each sequence."""

    def __init__(self, n_threads: int = 2) -> None:
        self.lengths: dict[int, int] = {}
        self.steps: list[list[tuple[int, int]]] = []
        self.n_threads = n_threads
        self.n_opened = 0

    def info(self) -> Any:
        return SimpleNamespace(n_threads=self.n_threads)

    def open_seq(self) -> int:
        self.n_opened += 1
        self.lengths[self.n_opened] = 0
        return self.n_opened

    def close_seq(self, seq: int) -> None:
        del self.lengths[seq]

    def truncate(self, seq: int, n_tokens: int) -> None:
        self.lengths[seq] = n_tokens

    def step(self, items: Sequence[tuple[int, Sequence[int], int, bool]]) -> None:
        self.steps.append([(seq, len(tokens)) for seq, tokens, _, _ in items])
        for seq, tokens, outputs, sample in items:
            assert all(0 <= token < 50 for token in tokens)
            assert outputs in (0, 1)
            assert not sample
            self.lengths[seq] += len(tokens)


def clock(step: int = 1_000_000_000) -> Callable[[], int]:
    now = 0

    def tick() -> int:
        nonlocal now
        now += step
        return now

    return tick


@pytest.mark.parametrize(
    ("test", "batch", "steps"),
    [
        (bench.Test(10, 0, 2, 1), 4, [[4], [4], [2]]),
        (bench.Test(10, 0, 2, 2), 8, [[4, 4], [4, 4], [2, 2]]),
        (bench.Test(3, 0, 2, 3), 2, [[1, 1], [1], [1, 1], [1], [1, 1], [1]]),
        (bench.Test(0, 3, 2, 1), 4, [[1], [1], [1]]),
        (bench.Test(0, 2, 2, 3), 4, [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_steps(test: bench.Test, batch: int, steps: list[list[int]]) -> None:
    engine = FakeEngine()
    samples = bench.measure(engine, test, 50, batch, 2, clock())
    timed = engine.steps[len(engine.steps) - 2 * len(steps) :]
    assert [[count for _, count in step] for step in timed] == steps * 2
    assert samples == [1_000_000_000] * 2
    assert engine.lengths == {}


def test_sequences_are_given_back_after_a_failure() -> None:
    engine = FakeEngine()
    engine.step = lambda items: 1 // 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        bench.measure(engine, bench.Test(5, 0, 1, 3), 50, 8, 1)
    assert engine.lengths == {}


def test_row() -> None:
    row = bench.row(bench.Test(0, 128, 2, 4), [1_000_000_000, 2_000_000_000], {"model": "m"})
    assert row["avg_ts"] == 384.0  # 512 and 256 tokens a second
    assert row["stddev_ts"] == pytest.approx(181.019, abs=1e-3)
    assert row["samples_ts"] == [512.0, 256.0]
    assert row["avg_ns"] == 1_500_000_000
    assert (row["test"], row["n_gen"], row["n_prompt"], row["n_threads"]) == ("tg128", 128, 0, 2)
    assert bench.row(bench.Test(512, 0, 2, 1), [10], {})["stddev_ts"] == 0.0


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """A stand-in for the weights; records how engines were asked for."""
    asked: list[dict[str, int]] = []

    class Weights:
        info = SimpleNamespace(
            n_vocab=50, architecture="llama", type="Q8_0", n_bytes=1_000_000, n_params=2_000_000, has_encoder=False
        )

        @contextmanager
        def engine(self, **options: int) -> Iterator[FakeEngine]:
            asked.append(options)
            yield FakeEngine(options["n_threads"] or 7)

    @contextmanager
    def open_weights(path: object) -> Iterator[Weights]:
        yield Weights()

    monkeypatch.setattr(_model, "open_weights", open_weights)
    return asked


def test_command(cli: Cli, model: str, weights: list[dict[str, int]]) -> None:
    result = cli("bench", model, "-p", "16,32", "-n", "4", "-t", "1,2", "-r", "2", "--parallel", "2", "--json")
    rows = json.loads(result.out)
    assert [(row["n_threads"], row["test"]) for row in rows] == [
        (1, "pp16"), (1, "pp32"), (1, "tg4"), (2, "pp16"), (2, "pp32"), (2, "tg4"),
    ]  # fmt: skip
    assert {len(row["samples_ts"]) for row in rows} == {2}
    assert rows[0]["model_type"] == "llama Q8_0"
    assert weights[0] == {"n_ctx": 32, "n_seqs": 2, "n_batch": 512, "n_threads": 1}
    table = cli("bench", model, "-p", "0", "-n", "4", "-r", "1").out.splitlines()
    assert len(table) == 2
    assert table[1].split()[:7] == ["llama", "Q8_0", "1.0", "MB", "2.0", "M", "7"]


def test_wrong_usage(cli: Cli, model: str, weights: list[dict[str, int]]) -> None:
    for arguments, words in (
        (["-p", "0", "-n", "0"], "nothing to measure"),
        (["-t", "0"], "-t must be from 1 to 256"),
        (["-t", "257"], "-t must be from 1 to 256"),
        (["-p", "1,x"], "not a list of numbers"),
        (["-p", "-1"], "not from 0 to"),
        (["-r", "0"], "-r"),
    ):
        result = cli("bench", model, *arguments)
        assert result.code == 2
        assert words in result.err
