"""Going back in a sequence: truncation, checkpoints, abandoned steps, reused slots, however a layer remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgellm import _native
from edgellm.errors import Cancelled
from tests.support.tiny import tiny_tokens

Tiny = Callable[..., Path]
RECURRENT = ("mamba2", "lfm2")
TOKENS = tiny_tokens(120)


@contextmanager
def opened(path: Path, **options: int) -> Iterator[_native.Engine]:
    with (
        _native.Model(path) as model,
        model.engine(**({"n_ctx": 256, "n_seqs": 2, "n_threads": 1} | options)) as engine,
    ):
        yield engine


def feed(engine: _native.Engine, *items: tuple[int, list[int]]) -> list[np.ndarray]:
    """Logits of every token, for each (sequence, tokens) of one step."""
    engine.step([(seq, tokens, _native.OUT_ALL, False) for seq, tokens in items])
    return [np.frombuffer(engine.logits(i), np.float32).reshape(-1, engine.n_vocab).copy() for i in range(len(items))]


def goes_on(engine: _native.Engine, seq: int, whole: np.ndarray) -> None:
    """From wherever the sequence is, the rest of TOKENS gives the rest of *whole*."""
    n = engine.length(seq)
    np.testing.assert_array_equal(feed(engine, (seq, TOKENS[n:]))[0], whole[n:])


@pytest.mark.parametrize("arch", ["llama", *RECURRENT])
def test_truncation(arch: str, tiny: Tiny) -> None:
    """Without recurrent memory to any length, with it to checkpoints, the present and the beginning."""
    exact = arch not in RECURRENT
    with opened(tiny(arch)) as engine:
        seq = engine.open_seq()
        whole = feed(engine, (seq, TOKENS))[0]
        assert engine.truncate(seq, 120) == 120
        assert engine.truncate(seq, 50) == (50 if exact else 0)
        goes_on(engine, seq, whole)
        assert engine.truncate(seq, 0) == 0
        feed(engine, (seq, TOKENS[:40]))
        engine.checkpoint(seq)
        feed(engine, (seq, TOKENS[40:70]))
        engine.checkpoint(seq)
        feed(engine, (seq, TOKENS[70:90]), (engine.open_seq(), TOKENS))  # a neighbour changes nothing
        assert engine.truncate(seq, 75) == (75 if exact else 70)
        goes_on(engine, seq, whole)
        assert engine.truncate(seq, 70) == 70  # a checkpoint serves again
        goes_on(engine, seq, whole)
        assert engine.truncate(seq, 69) == (69 if exact else 40)
        feed(engine, (seq, TOKENS[:60]))  # other tokens: the checkpoint at 70 was of what is no more
        assert engine.truncate(seq, 80) == (80 if exact else 40)
        assert engine.truncate(seq, 40) == 40
        goes_on(engine, seq, whole)


@pytest.mark.parametrize("arch", RECURRENT)
def test_checkpoints_are_few_and_counted(arch: str, tiny: Tiny) -> None:
    with opened(tiny(arch)) as engine:
        none = engine.info().state_bytes
        seq = engine.open_seq()
        for n in range(10):
            feed(engine, (seq, TOKENS[n : n + 1]))
            engine.checkpoint(seq)
            engine.checkpoint(seq)  # at the same length: one is enough
        assert none > 0
        assert engine.info().state_bytes == none + 8 * none // 4  # of 2 sequences with 2 slots each
        assert engine.truncate(seq, 2) == 0  # the two oldest are gone
        assert engine.info().state_bytes == none
        feed(engine, (seq, TOKENS[:5]))
        engine.checkpoint(seq)
        engine.close_seq(seq)
        assert engine.info().state_bytes == none


def test_no_recurrent_memory_needs_no_checkpoints(tiny: Tiny) -> None:
    with opened(tiny("llama")) as engine:
        seq = engine.open_seq()
        feed(engine, (seq, TOKENS))
        engine.checkpoint(seq)
        assert engine.info().state_bytes == 0


@pytest.mark.parametrize("arch", ["llama", "gemma3", *RECURRENT])
def test_a_cancelled_step_changes_nothing(arch: str, tiny: Tiny) -> None:
    with opened(tiny(arch, n_layer=20)) as engine:
        seq, other = engine.open_seq(), engine.open_seq()
        whole = feed(engine, (seq, TOKENS))[0]
        engine.truncate(seq, 0)
        feed(engine, (seq, TOKENS[:33]), (other, TOKENS[:5]))
        for n in (1, 200):
            engine.begin([(seq, [7] * n, _native.OUT_ALL, False), (other, [9], _native.OUT_NONE, False)])
            if n > 1:
                assert not engine.run(1)  # some of it
            engine.cancel()
            with pytest.raises(Cancelled):
                engine.run()
            assert (engine.length(seq), engine.length(other)) == (33, 5)
        goes_on(engine, seq, whole)
        np.testing.assert_array_equal(feed(engine, (other, TOKENS[5:]))[0], whole[5:])


@pytest.mark.parametrize("arch", RECURRENT)
def test_a_new_sequence_begins_at_zero(arch: str, tiny: Tiny) -> None:
    with opened(tiny(arch), n_seqs=1) as engine:
        first = engine.open_seq()
        whole = feed(engine, (first, TOKENS))[0]
        engine.close_seq(first)
        second = engine.open_seq()
        assert second == first  # the same slots
        goes_on(engine, second, whole)


# ---- sliding windows: layers keep only what they still see -----------------------------------------------------------

LONG = tiny_tokens(500)
WINDOW = {"n_ctx": 512, "n_batch": 64}  # of 24 positions, in blocks of 32


@pytest.fixture(scope="module")
def long_logits(tiny: Tiny) -> np.ndarray:
    with opened(tiny("gemma3"), n_ctx=512, n_seqs=1) as engine:
        return feed(engine, (engine.open_seq(), LONG))[0]


def read(engine: _native.Engine, seq: int, end: int) -> np.ndarray:
    """Feed LONG up to *end* in steps of uneven size."""
    rows = []
    while (n := engine.length(seq)) < end:
        rows.append(feed(engine, (seq, LONG[n : min(end, n + 1 + n * 7 % 45)]))[0])
    return np.concatenate(rows)


def test_a_window_has_a_cache_of_its_own(tiny: Tiny, long_logits: np.ndarray) -> None:
    with opened(tiny("gemma3"), n_ctx=512, n_batch=512) as engine:
        shared = engine.info().kv_bytes  # such steps would need more than the whole context
    with opened(tiny("gemma3"), **WINDOW) as engine:
        assert engine.info().kv_bytes < 0.8 * shared
        first, second = engine.open_seq(), engine.open_seq()
        rows: dict[int, list[np.ndarray]] = {first: [], second: []}
        while engine.length(first) < 500:
            parts = [(seq, LONG[engine.length(seq) :][:n]) for seq, n in ((first, 37), (second, 20))]
            for (seq, _), found in zip(parts, feed(engine, *parts), strict=True):
                rows[seq].append(found)
        for seq in rows:
            together = np.concatenate(rows[seq])
            np.testing.assert_array_equal(together, long_logits[: len(together)])


def test_a_window_can_be_moved_back_a_little(tiny: Tiny, long_logits: np.ndarray) -> None:
    """By 64 tokens at least; further to a checkpoint, which holds on to what it saw, or to the beginning."""
    with opened(tiny("gemma3"), **WINDOW) as engine:
        seq = engine.open_seq()
        read(engine, seq, 200)
        engine.checkpoint(seq)
        for end in range(300, 400, 9):
            read(engine, seq, end)
            assert engine.truncate(seq, end - 64) == end - 64
            np.testing.assert_array_equal(read(engine, seq, end), long_logits[end - 64 : end])
        for _ in range(2):  # a checkpoint serves again
            assert engine.truncate(seq, 280) == 200
            np.testing.assert_array_equal(read(engine, seq, 480), long_logits[200:480])
        assert engine.truncate(seq, 199) == 0
        np.testing.assert_array_equal(read(engine, seq, 500), long_logits)


def test_checkpoints_give_way_to_tokens(tiny: Tiny, long_logits: np.ndarray) -> None:
    with opened(tiny("gemma3"), **WINDOW) as engine:
        first, second = engine.open_seq(), engine.open_seq()
        for end in range(40, 360, 40):
            read(engine, first, end)
            engine.checkpoint(first)
            read(engine, second, end)
            engine.checkpoint(second)
        np.testing.assert_array_equal(read(engine, first, 500), long_logits[320:])
        for _ in range(3):  # steps that need more at once than a window has
            engine.truncate(second, 0)
            for _ in range(7):
                n = engine.length(second)
                np.testing.assert_array_equal(feed(engine, (second, LONG[n : n + 64]))[0], long_logits[n : n + 64])
        assert engine.truncate(first, 400) in (0, 240, 280, 320)
        goes = engine.length(first)
        np.testing.assert_array_equal(read(engine, first, 420), long_logits[goes:420])
