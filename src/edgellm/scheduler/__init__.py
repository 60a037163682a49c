"""
Who runs next: plain Python over counts, no pointers, no arrays, nothing else of edgellm.

There is no prefill phase and no decode phase: each sequence has tokens known and tokens computed, and a step is plain
data saying how many more tokens of which sequence to compute. The idea is vLLM's (its v1 scheduler).
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 32  # tokens in a cache block


class Step(NamedTuple):  # no dataclasses here: each takes 0.3 ms to make, before every answer
    """What one engine call runs, by sequence id."""

    n_tokens: dict[int, int]  # tokens to compute now, at least 1 each, in the order sequences came
    preempted: list[int]  # give their cache blocks back first; computed again later
    n_blocks_left: int  # free cache blocks once this step has run


class _Sequence:
    __slots__ = ("n_computed", "n_known")

    def __init__(self, n_known: int) -> None:
        self.n_known = n_known
        self.n_computed = 0

    @property
    def n_missing(self) -> int:
        return self.n_known - self.n_computed

    @property
    def n_blocks(self) -> int:
        return _blocks(self.n_computed)


def _blocks(n_tokens: int) -> int:
    return -(-n_tokens // BLOCK)


class Scheduler:
    """
    Sequences in the order they came, and the next step for them.

    Args:
        n_batch: Tokens a step may compute, at least 1.
    """

    def __init__(self, n_batch: int) -> None:
        self.n_batch = n_batch
        self._sequences: dict[int, _Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def add(self, seq: int, n_known: int) -> None:
        """Take in a sequence of *n_known* tokens, none of them computed."""
        self._sequences[seq] = _Sequence(n_known)

    def append(self, seq: int) -> None:
        """One more token of *seq* is known: the one just chosen."""
        self._sequences[seq].n_known += 1

    def remove(self, seq: int) -> None:
        """Forget a sequence that has ended."""
        del self._sequences[seq]

    def start_again(self) -> None:
        """All sequences have given their cache blocks back: nothing of them is computed."""
        for sequence in self._sequences.values():
            sequence.n_computed = 0

    def n_missing(self, seq: int) -> int:
        """Tokens of *seq* known and not yet computed; 0: its next token can be chosen."""
        return self._sequences[seq].n_missing

    def plan(self, n_blocks_free: int) -> Step:
        """
        The next step. Sequences that generate come first, one token each; prompts share the rest, oldest first.

        When blocks run out for those that generate, the newest sequences give theirs back. Prompts never take blocks
        from anyone: the oldest sequence always gets on, so all of them end.
        """
        n_tokens: dict[int, int] = {}
        preempted: list[int] = []
        free, budget = n_blocks_free, self.n_batch
        for seq in [seq for seq, s in self._sequences.items() if s.n_computed and s.n_missing == 1]:
            sequence = self._sequences[seq]
            if budget == 0 or seq in preempted:
                continue
            cost = _blocks(sequence.n_computed + 1) - sequence.n_blocks
            while free < cost:
                victim = self._newest(preempted, n_tokens)
                if victim is None or victim == seq:
                    break
                preempted.append(victim)
                free += self._sequences[victim].n_blocks
            if free >= cost:
                n_tokens[seq] = 1
                free, budget = free - cost, budget - 1
        for seq, sequence in self._sequences.items():
            if seq in n_tokens or seq in preempted or sequence.n_missing == 0:
                continue
            room = (free + sequence.n_blocks) * BLOCK - sequence.n_computed
            n = min(budget, sequence.n_missing, room)
            if n > 0:
                n_tokens[seq] = n
                free, budget = free - (_blocks(sequence.n_computed + n) - sequence.n_blocks), budget - n
        if not n_tokens and len(self._sequences) > 1:
            victim = self._newest(preempted, n_tokens)
            if victim is not None and victim != next(iter(self._sequences)):
                preempted.append(victim)  # nobody can move: half-read prompts hold the blocks
                free += self._sequences[victim].n_blocks
        for seq in preempted:
            self._sequences[seq].n_computed = 0
        return Step({seq: n_tokens[seq] for seq in self._sequences if seq in n_tokens}, preempted, free)

    def _newest(self, preempted: list[int], n_tokens: dict[int, int]) -> int | None:
        """The newest sequence that holds blocks and has no part in the step yet."""
        for seq in reversed(self._sequences):
            if seq not in preempted and seq not in n_tokens and self._sequences[seq].n_blocks:
                return seq
        return None

    def commit(self, step: Step) -> None:
        """*step* has run."""
        for seq, n in step.n_tokens.items():
            self._sequences[seq].n_computed += n
