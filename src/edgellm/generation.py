"""
Sequences running on one engine: `Core` is what all calls of an LLM share, `Batch` is one call.

Calls of several threads, and streams that their reader has not finished, take turns step by step: a call never holds
the engine while Python code of the caller runs. The prompts of one call share steps.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from edgellm import _native
from edgellm._room import Room
from edgellm._turns import Turns
from edgellm.errors import CacheFull, Cancelled, ClosedError, Unsupported
from edgellm.results import Chunk, Completion, FinishReason, Timings, TokenLogprob
from edgellm.sampling import SamplingParams
from edgellm.scheduler import Scheduler, Step
from edgellm.tokenizer import Tokenizer


class Core:
    """An engine, whose turn it is, and who holds its sequences."""

    def __init__(self, engine: _native.Engine, tokenizer: Tokenizer) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.info = engine.info()
        self.room = Room()
        self.turns = Turns(self.room.has_lock)
        self.epoch = 0  # cancel() starts a new one; calls of an older one end
        self._closing = False
        self._stepping = False
        self._pieces: dict[int, bytes] = {}

    def piece(self, token: int) -> bytes:
        """The bytes of *token*, control tokens too."""
        if token not in self._pieces:
            try:
                self._pieces[token] = self.tokenizer.decode([token], keep_special=True)
            except Unsupported:  # a vocabulary without text
                self._pieces[token] = b""
        return self._pieces[token]

    def cancel(self) -> None:
        """End all calls under way."""
        self.epoch += 1
        if self._stepping:
            self.engine.cancel()
        self.room.wake()

    def close(self) -> None:
        """End all calls under way with ClosedError, and give the engine back."""
        self._closing = True
        if not self.engine.closed:
            self.cancel()
        self.engine.close()

    def open(self, source: Sequence[int], epoch: int) -> int:
        """A new sequence; the encoder of a model that has one reads *source*. The caller has the turn."""
        seq = self.engine.open_seq()
        if source:
            try:
                self.step([(seq, source, _native.OUT_NONE, False)], epoch, encode=True)
            except BaseException:
                close_all(self, [seq])
                raise
        return seq

    def step(
        self, items: Sequence[_native.Item], epoch: int, encode: bool = False, type_from: Sequence[int] = ()
    ) -> None:
        """One step, see `Engine.begin`; the caller has the turn. Ctrl-C gets through every SLICE_MS."""
        while True:
            self.engine.begin(items, encode, type_from)
            self._stepping = True
            try:
                while not self.engine.run(_native.SLICE_MS):
                    self.check(epoch)
                return
            except Cancelled:
                if self.epoch != epoch:
                    self.check(epoch)
                # It was meant for a call that had ended by then: again.
            finally:
                self._stepping = False

    def check(self, epoch: int) -> None:
        """Raise if the LLM was closed or the calls of *epoch* were cancelled."""
        if self._closing or self.engine.closed:
            raise ClosedError("this LLM is closed") from None
        if self.epoch != epoch:
            raise Cancelled("the call was cancelled") from None


class Run:
    """One prompt and what has become of it."""

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        seed: int,
        heal_token: int = -1,
        source: Sequence[int] = (),
    ) -> None:
        self.prompt = prompt
        self.source = source  # what the encoder reads, of models that have one
        self.heal_token = heal_token  # taken off the prompt; -1: none
        self.params = params
        self.seed = seed
        self.seq = -1
        self.tokens: list[int] = []
        self.texts: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish: FinishReason | None = None
        self.stop_reason: str | int | None = None
        self.started = self.first = self.last = 0.0
        self.n_reported = 0  # tokens that were in a chunk
        self.n_texts_reported = 0

    def completion(self, asked: float, finish: FinishReason | None = None) -> Completion:
        """The result, when it was asked for at time *asked*."""
        return Completion(
            text="".join(self.texts),
            token_ids=list(self.tokens),
            finish_reason=finish or self.finish or "length",
            stop_reason=self.stop_reason,
            n_prompt=len(self.source or self.prompt),
            n_generated=len(self.tokens),
            timings=self._timings(asked),
            logprobs=None if self.params.logprobs is None else list(self.logprobs),
            seed=self.seed,
        )

    def _timings(self, asked: float) -> Timings:
        if not self.tokens:
            return Timings()
        prefill, decode = self.first - self.started, self.last - self.first
        return Timings(
            queue_ms=(self.started - asked) * 1e3,
            prefill_ms=prefill * 1e3,
            decode_ms=decode * 1e3,
            first_token_ms=(self.first - asked) * 1e3,
            prefill_per_s=len(self.prompt) / prefill if prefill > 0 else 0.0,
            decode_per_s=(len(self.tokens) - 1) / decode if decode > 0 and len(self.tokens) > 1 else 0.0,
        )

    def chunk(self, asked: float) -> Chunk | None:
        """What is new since the last chunk; None while that is no text."""
        text = "".join(self.texts[self.n_texts_reported :])
        if not text and self.finish is None:
            return None
        new = slice(self.n_reported, len(self.tokens))
        self.n_reported, self.n_texts_reported = len(self.tokens), len(self.texts)
        return Chunk(
            text=text,
            token_ids=self.tokens[new],
            finish_reason=self.finish,
            logprobs=None if self.params.logprobs is None else self.logprobs[new],
            completion=self.completion(asked) if self.finish else None,
        )


class Batch:
    """
    The prompts of one call. Use it in a ``with`` block: leaving gives the sequences back.

    Args:
        core: What all calls share.
        runs: The prompts.
    """

    def __init__(self, core: Core, runs: Sequence[Run]) -> None:
        self._core = core
        self._epoch = core.epoch
        self._scheduler = Scheduler(core.info.n_batch)
        self._waiting = deque(run for run in runs if self._begin(run))
        self._open: dict[int, Run] = {}
        self.asked = time.perf_counter()

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @staticmethod
    def _begin(run: Run) -> bool:
        if run.params.max_tokens == 0:
            run.finish = "length"
        return run.finish is None

    @property
    def done(self) -> bool:
        """Whether all prompts have their answer."""
        return not self._waiting and not self._open

    def step(self) -> None:
        """Compute one step: every sequence that generates gets its next token."""
        self._admit()
        while not self._try_step():
            pass

    def _try_step(self) -> bool:
        core = self._core
        seen = core.room.releases
        try:
            with core.turns.turn():
                self._check()
                step = self._plan()
                now = time.perf_counter()
                for seq in step.n_tokens:
                    self._open[seq].started = self._open[seq].started or now
                items = [self._item(seq, n) for seq, n in step.n_tokens.items()]
                core.step([item for item, _ in items], self._epoch)
                self._scheduler.commit(step)
                chosen = [self._open[item[0]] for item, samples in items if samples]
                for number, (item, samples) in enumerate(items):
                    if samples:
                        self._take(number, self._open[item[0]])
                for run in chosen:  # only now: closing a sequence ends the engine's step
                    if run.finish:
                        self._remove(run)
            return True
        except CacheFull as error:
            if core.room.wait(self, seen, error, self._check):
                self._stand_back()
            return False

    def _check(self) -> None:
        self._core.check(self._epoch)

    def _stand_back(self) -> None:
        """Let other calls have the cache; what this one had in it is computed again afterwards."""
        with self._core.turns.turn():
            self._check()
            for seq in self._open:
                self._core.engine.truncate(seq, 0)
            self._scheduler.start_again()
        self._core.room.stand_back(self, self._check)

    def _admit(self) -> None:
        """Open sequences for those that wait, as many as there are; at least one."""
        core = self._core
        while self._waiting:
            seen = core.room.releases
            run = self._waiting[0]
            try:
                with core.turns.turn():
                    self._check()
                    run.seq = core.open(run.source, self._epoch)
                    self._open[run.seq] = run
                    self._waiting.popleft()
                    core.engine.sample(run.seq, run.params, run.seed, run.prompt, run.heal_token)
            except CacheFull as error:
                if self._open:
                    return
                core.room.wait(self, seen, error, self._check)
                continue
            core.room.hold(self)
            self._scheduler.add(run.seq, len(run.prompt))
        core.room.hold(self)

    def _plan(self) -> Step:
        engine = self._core.engine
        while True:
            step = self._scheduler.plan(engine.info().n_blocks_free)
            for seq in step.preempted:
                engine.truncate(seq, 0)
            if step.n_tokens:
                return step
            if not step.preempted:
                raise CacheFull("the cache has no room for another token; open the LLM with a smaller n_seqs or n_ctx")

    def _item(self, seq: int, n: int) -> tuple[_native.Item, bool]:
        run = self._open[seq]
        missing = self._scheduler.n_missing(seq)
        n_known = len(run.prompt) + len(run.tokens)
        start = n_known - missing
        samples = n == missing
        tokens = _slice(run.prompt, run.tokens, start, start + n)
        return (seq, tokens, _native.OUT_LAST if samples else _native.OUT_NONE, samples), samples

    def _take(self, number: int, run: Run) -> None:
        """Take over the token chosen for item *number* of the step."""
        engine = self._core.engine
        sampled = engine.sampled(number)
        run.last = time.perf_counter()
        run.first = run.first or run.last
        run.tokens.append(sampled.token)
        text = engine.take_text(run.seq)
        if text:
            run.texts.append(text)
        if run.params.logprobs is not None:
            run.logprobs.append(self._logprob(sampled))
        if sampled.finish != _native.FINISH_NONE:
            self._finish(run, sampled)
        else:
            self._scheduler.append(run.seq)

    def _finish(self, run: Run, sampled: _native.Sampled) -> None:
        run.finish = "length" if sampled.finish == _native.FINISH_LENGTH else "stop"
        if sampled.finish == _native.FINISH_EOG and sampled.token in (run.params.stop_tokens or ()):
            run.stop_reason = sampled.token
        elif sampled.finish == _native.FINISH_STOP:
            run.stop_reason = self._stop_string(run)

    def _remove(self, run: Run) -> None:
        self._scheduler.remove(run.seq)
        del self._open[run.seq]
        self._core.engine.close_seq(run.seq)
        self._core.room.let_go(self)
        if self._open:
            self._core.room.hold(self)

    def _stop_string(self, run: Run) -> str | None:
        """Which stop string ended it: the engine drops its text, so look where the text went on."""
        text = self._core.tokenizer.decode_text(run.tokens, keep_special=run.params.keep_special)
        kept = sum(map(len, run.texts))
        found = [(text.find(stop, max(0, kept - 1)), -len(stop), stop) for stop in run.params.stop_strings]
        return min((place for place in found if place[0] >= 0), default=(0, 0, None))[2]

    def _logprob(self, sampled: _native.Sampled) -> TokenLogprob:
        def named(token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
            piece = self._core.piece(token)
            return TokenLogprob(token, piece.decode("utf-8", "replace"), piece, logprob, top)

        return named(sampled.token, sampled.logprob, tuple(named(token, logprob) for token, logprob in sampled.top))

    def partial(self) -> Completion | None:
        """What the only prompt of this call has so far, as a cancelled completion."""
        runs = [*self._open.values(), *self._waiting]
        return runs[0].completion(self.asked, "cancelled") if len(runs) == 1 else None

    def close(self) -> None:
        """Give the sequences back. A step that Ctrl-C interrupted is taken back with them."""
        give_back(self._core, list(self._open), self)
        self._open.clear()
        self._waiting.clear()


def give_back(core: Core, seqs: Sequence[int], call: object) -> None:
    """Close what *call* has; where this thread is in the midst of another call, as soon as that lets others on."""
    if seqs and not core.engine.closed:
        core.turns.run(functools.partial(_close_call, core, seqs, call))
    elif core.room.holds(call):
        core.room.let_go(call)


def _close_call(core: Core, seqs: Sequence[int], call: object) -> None:
    close_all(core, seqs)
    core.room.let_go(call)


def close_all(core: Core, seqs: Sequence[int]) -> None:
    """Close sequences, also if the LLM is closed meanwhile."""
    with contextlib.suppress(ClosedError):
        for seq in seqs:
            core.engine.close_seq(seq)


def _slice(prompt: Sequence[int], tokens: Sequence[int], start: int, end: int) -> Sequence[int]:
    """Part of the prompt followed by the tokens generated."""
    n = len(prompt)
    if start >= n:
        return tokens[start - n : end - n]
    return [*prompt[start:end], *tokens[: max(0, end - n)]]


RowSink = Callable[[int, int, memoryview], None]  # prompt, position of the first row, rows as bytes


def compute_logits(
    core: Core,
    prompts: Sequence[Sequence[int]],
    chunk: int,
    sink: RowSink,
    sources: Sequence[Sequence[int]] | None = None,
) -> None:
    """Run *prompts* in shared steps of at most *chunk* tokens and hand every row to *sink*; *sources*: see `Run`."""
    epoch = core.epoch
    call = object()
    waiting, open_ = deque(range(len(prompts))), dict[int, int]()
    scheduler = Scheduler(chunk)

    def check() -> None:
        core.check(epoch)

    try:
        while waiting or open_:
            seen = core.room.releases
            try:
                with core.turns.turn():
                    check()
                    _open_seqs(core, waiting, open_, scheduler, prompts, sources, epoch)
                    core.room.hold(call)
                    _logits_step(core, scheduler, open_, prompts, sink, epoch)
            except CacheFull as error:
                if core.room.wait(call, seen, error, check):
                    with core.turns.turn():
                        check()
                        for seq in open_:
                            core.engine.truncate(seq, 0)
                        scheduler.start_again()
                    core.room.stand_back(call, check)
    finally:
        give_back(core, list(open_), call)


def _open_seqs(
    core: Core,
    waiting: deque[int],
    open_: dict[int, int],
    scheduler: Scheduler,
    prompts: Sequence[Sequence[int]],
    sources: Sequence[Sequence[int]] | None,
    epoch: int,
) -> None:
    while waiting:
        try:
            seq = core.open(sources[waiting[0]] if sources else (), epoch)
        except CacheFull:
            if open_:
                return
            raise
        open_[seq] = waiting.popleft()
        scheduler.add(seq, len(prompts[open_[seq]]))


def _logits_step(
    core: Core,
    scheduler: Scheduler,
    open_: dict[int, int],
    prompts: Sequence[Sequence[int]],
    sink: RowSink,
    epoch: int,
) -> None:
    """One step. A sequence that had to give its blocks back hands the same rows over again."""
    step = scheduler.plan(core.engine.info().n_blocks_free)
    for seq in step.preempted:
        core.engine.truncate(seq, 0)
    if not step.n_tokens:
        if step.preempted:
            return
        raise CacheFull("the cache has no room for another token; open the LLM with a smaller n_seqs or n_ctx")
    items: list[_native.Item] = []
    for seq, n in step.n_tokens.items():
        prompt = prompts[open_[seq]]
        start = len(prompt) - scheduler.n_missing(seq)
        items.append((seq, prompt[start : start + n], _native.OUT_ALL, False))
    core.step(items, epoch)
    for number, (seq, _, _, _) in enumerate(items):
        which = open_[seq]
        start = len(prompts[which]) - scheduler.n_missing(seq)
        sink(which, start, core.engine.logits(number))
    scheduler.commit(step)
    for seq in step.n_tokens:
        if scheduler.n_missing(seq) == 0:
            scheduler.remove(seq)
            del open_[seq]
            core.engine.close_seq(seq)
