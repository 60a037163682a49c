"""Who runs next, from counts alone."""

from __future__ import annotations

import random

import pytest

from edgellm.scheduler import BLOCK, Scheduler, Step

MANY = 10_000


def blocks(n_tokens: int) -> int:
    return -(-n_tokens // BLOCK)


def test_a_prompt_is_cut_at_the_budget() -> None:
    scheduler = Scheduler(100)
    scheduler.add(7, 250)
    for n in (100, 100, 50):
        step = scheduler.plan(MANY)
        assert step.n_tokens == {7: n}
        scheduler.commit(step)
    assert scheduler.n_missing(7) == 0
    assert scheduler.plan(MANY).n_tokens == {}


def test_generating_goes_before_reading() -> None:
    scheduler = Scheduler(100)
    scheduler.add(1, 10)
    scheduler.commit(scheduler.plan(MANY))
    scheduler.append(1)
    scheduler.add(2, 300)
    scheduler.add(3, 5)
    assert scheduler.plan(MANY).n_tokens == {1: 1, 2: 99}


def test_prompts_share_a_step_oldest_first() -> None:
    scheduler = Scheduler(64)
    for seq in (5, 3, 9):
        scheduler.add(seq, 30)
    step = scheduler.plan(MANY)
    assert list(step.n_tokens.items()) == [(5, 30), (3, 30), (9, 4)]
    assert step.n_blocks_left == MANY - 3


def test_a_prompt_takes_only_what_is_free() -> None:
    scheduler = Scheduler(1000)
    scheduler.add(1, 1000)
    step = scheduler.plan(3)
    assert step == Step({1: 3 * BLOCK}, [], 0)


def test_generating_takes_blocks_from_the_newest() -> None:
    scheduler = Scheduler(1000)
    scheduler.add(1, BLOCK)
    scheduler.add(2, BLOCK)
    scheduler.add(3, BLOCK)
    scheduler.commit(scheduler.plan(3))
    for seq in (1, 2, 3):
        scheduler.append(seq)
    step = scheduler.plan(0)
    assert step == Step({1: 1}, [3], 0)
    assert scheduler.n_missing(3) == BLOCK + 1  # the prompt and the token chosen are computed again


def test_the_only_sequence_cannot_be_helped() -> None:
    scheduler = Scheduler(1000)
    scheduler.add(1, BLOCK)
    scheduler.commit(scheduler.plan(1))
    scheduler.append(1)
    assert scheduler.plan(0) == Step({}, [], 0)


def test_half_read_prompts_do_not_block_each_other() -> None:
    scheduler = Scheduler(BLOCK)
    scheduler.add(1, 3 * BLOCK)
    scheduler.add(2, 3 * BLOCK)
    scheduler.commit(scheduler.plan(4))
    scheduler.commit(Step({2: BLOCK}, [], 0))  # as if both had begun
    step = scheduler.plan(0)
    assert step.n_tokens == {}
    assert step.preempted == [2]
    assert scheduler.plan(1).n_tokens == {1: BLOCK}


@pytest.mark.parametrize("seed", range(20))
def test_everything_ends_and_nothing_is_overdrawn(seed: int) -> None:
    """Random prompts and lengths through a small cache: each step keeps the rules, and all sequences end."""
    choose = random.Random(seed)
    n_blocks, n_batch = choose.randint(6, 20), choose.choice([1, 7, 32, 100])
    scheduler = Scheduler(n_batch)
    computed: dict[int, int] = {}
    known: dict[int, int] = {}
    to_generate: dict[int, int] = {}
    waiting = [(seq, choose.randint(1, 5 * BLOCK), choose.randint(1, BLOCK)) for seq in range(12)]
    for _ in range(100_000):
        while waiting and len(known) < 4:
            seq, n_prompt, n_more = waiting.pop()
            scheduler.add(seq, n_prompt)
            computed[seq], known[seq], to_generate[seq] = 0, n_prompt, n_more
        if not known:
            break
        free = n_blocks - sum(map(blocks, computed.values()))
        step = scheduler.plan(free)
        assert step.n_tokens or step.preempted
        assert sum(step.n_tokens.values()) <= n_batch
        assert not set(step.n_tokens) & set(step.preempted)
        for seq in step.preempted:
            computed[seq] = 0
        for seq, n in step.n_tokens.items():
            assert 1 <= n <= known[seq] - computed[seq]
            computed[seq] += n
        left = n_blocks - sum(map(blocks, computed.values()))
        assert left == step.n_blocks_left >= 0
        scheduler.commit(step)
        for seq in list(step.n_tokens):
            assert scheduler.n_missing(seq) == known[seq] - computed[seq]
            if computed[seq] == known[seq]:
                to_generate[seq] -= 1
                if to_generate[seq] == 0:
                    scheduler.remove(seq)
                    del computed[seq], known[seq]
                else:
                    scheduler.append(seq)
                    known[seq] += 1
    assert not known
    assert not waiting
    assert len(scheduler) == 0
