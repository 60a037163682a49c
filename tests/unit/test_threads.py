"""Several threads on one LLM, cancelling, and Ctrl-C at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm import LLM, CacheFull, Cancelled, ClosedError, EdgellmError, _native
from edgellm._turns import Turns

Tiny = Callable[..., Path]
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eog": True}
TEXT = "the and of in the"


@pytest.fixture(scope="module")
def slow_model(tiny: Tiny) -> Path:
    """Large enough that reading a full context takes about a second."""
    return tiny("llama", n_layer=12, n_embd=256, n_head=8, n_head_kv=8, n_ff=1024, n_ctx=4096)


@pytest.fixture(scope="module")
def llm(tiny: Tiny) -> Iterator[LLM]:
    with LLM(tiny("llama"), threads=1, n_ctx=64, n_seqs=4) as opened:
        yield opened


def together(*works: Callable[[], Any]) -> None:
    """Run in one thread each; the first error is raised here."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # passed on below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_turns_are_given_in_the_order_of_asking() -> None:
    turns, order, ready = Turns(), [], threading.Semaphore(0)
    first = turns.turn()
    first.__enter__()

    def work(number: int) -> None:
        turn = turns.turn()
        ready.release()
        with turn:
            order.append(number)

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        ready.acquire()
        while len(turns._line) < number + 2:
            time.sleep(0.001)
    first.__exit__(None, None, None)
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))
    assert not turns._line


def test_an_error_gives_the_turn_on() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.turn():
        raise KeyError
    with turns.turn():
        pass


def test_eight_threads_get_their_own_answers(llm: LLM) -> None:
    """More threads than sequences; generations, streams, logits and tokens mixed."""
    prompts = [TEXT[n:] for n in range(8)]
    expected = [llm.generate(prompt, max_tokens=6, **GREEDY).token_ids for prompt in prompts]
    rows = llm.logits([5, 6, 7])

    def work(number: int) -> None:
        choose = random.Random(number)
        for _ in range(40):
            n = choose.randrange(8)
            kind = choose.randrange(5)
            if kind == 0:
                assert llm.generate(prompts[n], max_tokens=6, **GREEDY).token_ids == expected[n]
            elif kind == 1:
                chunks = list(llm.stream(prompts[n], max_tokens=6, **GREEDY))
                assert [token for chunk in chunks for token in chunk.token_ids] == expected[n]
            elif kind == 2:
                results = llm.generate([prompts[n], prompts[n - 1]], max_tokens=6, **GREEDY)
                assert [result.token_ids for result in results] == [expected[n], expected[n - 1]]
            elif kind == 3:
                assert (llm.logits([5, 6, 7]) == rows).all()
            else:
                assert llm.detokenize(llm.tokenize(prompts[n])) == prompts[n]
                for chunk in llm.stream(prompts[n], **GREEDY):
                    assert chunk.completion is None
                    break

    together(*(lambda n=n: work(n) for n in range(8)))
    info = llm._core.engine.info()
    assert info.n_blocks_free == info.n_blocks


@pytest.fixture
def small_cache(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[LLM]:
    """Room for one sequence of 512 tokens, as on a machine with little memory; five may be open."""
    begin = _native.Engine.__init__
    monkeypatch.setattr(_native.Engine, "__init__", lambda *args, **o: begin(*args, **o, kv_bytes=1 << 18))
    with LLM(tiny("llama", n_ctx=512), threads=1, n_ctx=512, n_seqs=5) as opened:
        assert opened._core.engine.info().n_blocks == 16
        yield opened


@pytest.mark.skipif(os.environ.get("EDGELLM_CPU_BACKEND") == "ggml", reason="equal bits: a promise of our own backend")
def test_calls_that_wait_for_each_other_all_end(small_cache: LLM) -> None:
    """Each alone fits, any two do not: whoever came last gives its part of the cache back and begins again."""
    llm = small_cache
    expected = [llm.generate([5 + n] * 40, max_tokens=300, **GREEDY).token_ids for n in range(3)]
    rows = llm.logits([9] * 500)

    def generates(n: int) -> None:
        assert llm.generate([5 + n] * 40, max_tokens=300, **GREEDY).token_ids == expected[n]

    def streams(n: int) -> None:
        chunks = list(llm.stream([5 + n] * 40, max_tokens=300, **GREEDY))
        assert [token for chunk in chunks for token in chunk.token_ids] == expected[n]

    def several() -> None:
        results = llm.generate([[5] * 40, [6] * 40], max_tokens=300, **GREEDY)
        assert [result.token_ids for result in results] == expected[:2]

    def scores() -> None:
        assert (llm.logits([9] * 500, chunk=64) == rows).all()

    together(*(lambda n=n: generates(n) for n in range(3)), lambda: streams(1), several, scores)
    info = llm._core.engine.info()
    assert info.n_blocks_free == info.n_blocks
    assert not llm._core.room.busy


def test_threads_that_sit_on_unfinished_streams_are_told_so(small_cache: LLM) -> None:
    """Nobody would ever give anything back: an error instead of a wait without end, and then the rest goes on."""
    llm, opened, told = small_cache, threading.Barrier(2), []

    def sits(n: int) -> None:
        stream = llm.stream([5 + n] * 250, **GREEDY)
        next(stream)
        opened.wait(60)
        try:
            llm.generate([7] * 300, max_tokens=2, **GREEDY)
        except CacheFull as error:
            told.append(str(error))
        stream.close()

    together(lambda: sits(0), lambda: sits(1))
    assert told
    assert all("unfinished streams hold the rest" in text for text in told)


def test_waiting_for_room_can_be_cancelled(small_cache: LLM) -> None:
    llm, outcomes, holding = small_cache, [], threading.Event()
    stream = llm.stream([5] * 400, **GREEDY)
    next(stream)

    def waits() -> None:
        holding.set()
        with pytest.raises(Cancelled):
            llm.generate([7] * 300, max_tokens=2, **GREEDY)
        outcomes.append(True)

    def cancels() -> None:
        holding.wait(60)
        while not llm._core.room._waiting:
            time.sleep(0.001)
        llm.cancel()

    together(waits, cancels)
    assert outcomes
    stream.close()


def test_cancel_ends_calls_under_way_and_no_others(slow_model: Path) -> None:
    with LLM(slow_model, threads=1, n_ctx=4096, n_seqs=2) as llm:
        outcomes: list[Any] = []

        def work() -> None:
            try:
                llm.generate([5] * 4000, max_tokens=50, **GREEDY)
            except Cancelled as error:
                outcomes.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while not llm._core._stepping:
            time.sleep(0.001)
        llm.cancel()
        thread.join(60)
        assert len(outcomes) == 1
        assert outcomes[0].partial.n_generated == 0
        assert outcomes[0].partial.finish_reason == "cancelled"
        assert outcomes[0].partial.n_prompt == 4000
        llm.cancel()  # nothing is running: nothing happens
        assert llm.generate([5, 6], max_tokens=2, **GREEDY).n_generated == 2


def test_cancel_of_a_stream_keeps_what_there_was(llm: LLM) -> None:
    stream = llm.stream(TEXT, **GREEDY)
    first = next(stream)
    llm.cancel()
    with pytest.raises(Cancelled) as caught:
        list(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text.startswith(first.text)
    assert caught.value.partial.finish_reason == "cancelled"


def test_closing_under_a_running_call(slow_model: Path) -> None:
    """The call ends with an error; nothing is freed under its feet."""
    for wait in (0.0, 0.01, 0.05, 0.1, 0.2):
        llm = LLM(slow_model, threads=1, n_ctx=4096, n_seqs=2)

        def work(llm: LLM = llm) -> None:
            with pytest.raises(ClosedError, match="this LLM is closed"):
                llm.generate([5] * 4000, max_tokens=50, **GREEDY)

        def close(llm: LLM = llm, wait: float = wait) -> None:
            time.sleep(wait + 0.02)
            llm.close()

        together(work, close)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX")
@pytest.mark.parametrize("use", ["generate", "chat", "stream", "logits", "adapter"])
def test_a_signal_handler_that_calls_is_told_so(slow_model: Path, use: str) -> None:
    """It would wait for the very call it has interrupted. What it leaves behind is given back, and cancel() works."""
    with LLM(slow_model, threads=1, n_ctx=4096, n_seqs=3) as llm:
        stream = llm.stream([5], max_tokens=20, **GREEDY)
        next(stream)
        uses: dict[str, Callable[[], Any]] = {
            "generate": lambda: llm.generate([5], max_tokens=2),
            "chat": lambda: llm.chat([{"role": "user", "content": "the"}], max_tokens=2),
            "stream": lambda: next(stream),
            "logits": lambda: llm.logits([5]),
            "adapter": lambda: llm._apply([]),
        }
        told: list[str] = []

        def handler(*_: object) -> None:
            try:
                uses[use]()
            except EdgellmError as error:
                told.append(str(error))
            llm.cancel()

        before = signal.signal(signal.SIGALRM, handler)
        try:
            while not told:  # between two steps it works
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(Cancelled):
                    llm.generate([6] * 3000, max_tokens=1000, **GREEDY)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert "in the midst of another call" in told[0]
        stream.close()
        info = llm._core.engine.info()
        assert info.n_blocks_free == info.n_blocks
        assert not llm._core.room.busy
        assert llm.generate([5], max_tokens=2, **GREEDY).n_generated == 2


def test_a_turn_inside_a_turn_is_refused_and_work_left_to_it(llm: LLM) -> None:
    turns, done = Turns(), []
    with turns.turn():
        with pytest.raises(EdgellmError, match="in the midst of another call"), turns.turn():
            pass
        turns.run(lambda: done.append(len(turns._line)))
        assert not done
    assert done == [1]
    assert not turns._line
    assert not turns._threads
    stream = llm.stream(TEXT, **GREEDY)
    next(stream)
    with llm._core.turns.turn():
        del stream  # as the garbage collector may, at any moment
        assert llm._core.room.busy
    assert not llm._core.room.busy
    with llm._core.room._changed, pytest.raises(EdgellmError, match="in the midst of another call"):
        llm.generate(TEXT)  # another thread that has the turn may want this lock
    assert llm.generate(TEXT, max_tokens=2, **GREEDY).n_generated == 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX")
def test_signal_handlers_that_call_at_any_moment_end(tiny: Tiny) -> None:
    """With an answer or an error, also beside other threads that have the turn and want room."""
    choose, n_ends, going = random.Random(3), 0, True
    with LLM(tiny("llama"), threads=1, n_ctx=64, n_seqs=2) as llm:
        uses = [
            lambda: llm.generate(TEXT, max_tokens=3, **GREEDY),
            lambda: next(llm.stream(TEXT, **GREEDY)),
            lambda: llm.logits([5] * 20),
            lambda: llm.embed(["a", "b"]),
        ]

        def call() -> None:
            with contextlib.suppress(EdgellmError):
                choose.choice(uses)()

        def handler(*_: object) -> None:
            nonlocal n_ends
            call()
            n_ends += 1
            signal.setitimer(signal.ITIMER_REAL, choose.choice([0.0002, 0.001, 0.003]))

        def work() -> None:
            while going:
                with contextlib.suppress(EdgellmError):
                    llm.generate([5] * 30, max_tokens=9, **GREEDY)

        call_all = [use() for use in uses]  # imports, which a handler must not find half done
        assert len(call_all) == len(uses)
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            call()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        going = False
        for thread in threads:
            thread.join(30)
        assert n_ends > 10
        assert llm.generate(TEXT, max_tokens=2, **GREEDY).n_generated == 2
        assert not llm._core.room.busy


INTERRUPT = """
import json, os, random, signal, sys, threading, time
from edgellm import LLM

llm = LLM(sys.argv[1], threads=1, n_ctx=4096, n_seqs=2)
llm.generate([5] * 20, max_tokens=2)
llm.logits([5])  # NumPy's first import swallows an interruption
expected = llm.generate([5, 6, 7], max_tokens=4, temperature=0, ignore_eog=True).token_ids
choose = random.Random(5)
late, sent = [], None

def interrupt(wait):
    global sent
    time.sleep(wait)
    sent = time.perf_counter(), time.process_time()
    os.kill(os.getpid(), signal.SIGINT)

def calls():
    llm.generate([5] * 4000, max_tokens=200, temperature=0, ignore_eog=True)

def streams():
    for _ in llm.stream([5] * 300, temperature=0, ignore_eog=True):
        pass

def rows():
    llm.logits([5] * 3000)

def waits():  # for a turn that another thread has
    with llm._core.turns.turn():
        done = threading.Event()
        worker = threading.Thread(target=lambda: done.wait(5))
        worker.start()
        try:
            worker.join()
        finally:
            done.set()

for number in range(int(sys.argv[2])):
    timer = threading.Thread(target=interrupt, args=(choose.uniform(0.0, 0.4),))
    try:
        try:
            timer.start()
            while True:
                (calls, streams, rows, waits)[number % 4]()
        except KeyboardInterrupt:
            late.append((time.perf_counter() - sent[0], time.process_time() - sent[1]))
        timer.join()
    except KeyboardInterrupt:
        late.append((0.0, 0.0))
    assert llm.generate([5, 6, 7], max_tokens=4, temperature=0, ignore_eog=True).token_ids == expected
info = llm._core.engine.info()
print(json.dumps({"late": late, "blocks": [info.n_blocks_free, info.n_blocks], "line": len(llm._core.turns._line)}))
"""


@pytest.mark.slow
def test_ctrl_c_at_any_moment(slow_model: Path) -> None:
    """KeyboardInterrupt comes soon, and the LLM is as good as new."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT, str(slow_model), "24"], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert len(result["late"]) == 24
    wall, cpu = (sorted(times) for times in zip(*result["late"], strict=True))
    assert cpu[len(cpu) // 2] < 0.1, cpu  # as promised; processor time, since neighbours may take the processor away
    assert cpu[-1] < 1, cpu
    assert wall[-1] < 10, wall
    assert result["blocks"][0] == result["blocks"][1]
    assert result["line"] == 0


def test_the_interpreter_lock_is_free_while_computing(slow_model: Path) -> None:
    """Another Python thread goes on while a prompt is read."""
    with LLM(slow_model, threads=1, n_ctx=4096, n_seqs=1) as llm:
        n_wakes, running = 0, True

        def watch() -> None:
            nonlocal n_wakes
            while running:
                time.sleep(0.002)
                n_wakes += 1

        thread = threading.Thread(target=watch)
        thread.start()
        llm.logits([5] * 1000)
        running = False
        thread.join(10)
        assert n_wakes > 10  # with the lock held: one or two
