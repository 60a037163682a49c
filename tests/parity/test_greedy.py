"""Greedy answers of real models against llama.cpp's, recorded by tests/data/greedy/record.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgellm import LLM

DATA = Path(__file__).parents[1] / "data" / "greedy"
MODELS = {"smollm2": "smollm2", "gemma3-270m": "gemma3:270m"}  # recording: name in the store
# Where two logits are nearer than this, rounding may decide which token comes. Gemma's K-quants: llama.cpp multiplies
# them in a repacked layout that rounds otherwise (first divergence seen: 0.13).
MAX_GAP = {"smollm2": 0.05, "gemma3-270m": 0.5}
# Scores of all tokens in one step differ from those of single steps, in llama.cpp too: on SmolLM2 the distance between
# the best two moves by 0.17 on average and 0.72 at most (int8 activations round otherwise after each layer).
MAX_GAP_IN_ONE_STEP = 1.0

pytestmark = pytest.mark.models


@cache
def recording(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module", params=MODELS)
def opened(request: pytest.FixtureRequest, real_model: Callable[[str], Path]) -> Iterator[tuple[str, LLM]]:
    with LLM(real_model(MODELS[request.param]), n_ctx=512, threads=1) as llm:
        yield request.param, llm


def runs(opened: tuple[str, LLM]) -> Iterator[tuple[LLM, dict[str, Any]]]:
    name, llm = opened
    for run in recording(name)["runs"]:
        yield llm, run


def first_difference(a: list[int], b: list[int]) -> int | None:
    return next((i for i in range(max(len(a), len(b))) if a[i : i + 1] != b[i : i + 1]), None)


def without_end(llm: LLM, ids: list[int]) -> list[int]:
    return ids[:-1] if ids and llm.tokenizer.is_eog(ids[-1]) else ids


def test_prompts_become_the_same_ids(opened: tuple[str, LLM]) -> None:
    for llm, run in runs(opened):
        assert llm.tokenize(run["text"], parse_special=True) == run["prompt_ids"]
        if run["kind"] == "chat":
            assert llm.render([{"role": "user", "content": run["prompt"]}]) == run["text"]


def test_same_tokens(opened: tuple[str, LLM]) -> None:
    """Equal, or at the first difference our logits of the two candidates are nearer than MAX_GAP."""
    n_equal = 0
    for llm, run in runs(opened):
        answer = llm.generate(run["prompt_ids"], temperature=0, max_tokens=64)
        ours, theirs = without_end(llm, list(answer.token_ids)), without_end(llm, run["generated_ids"])
        at = first_difference(ours, theirs)
        if at is None:
            n_equal += 1
            assert answer.finish_reason == ("stop" if run["stop"] == "eos" else "length")
            assert answer.text == run["generated_text"]
            continue
        full = list(answer.token_ids)  # one of the two may have ended here
        wanted = run["generated_ids"]
        assert at < len(full), "ours ended without an end token"
        assert at < len(wanted), "theirs ended without an end token"
        scores = llm.logits(run["prompt_ids"] + ours[:at], chunk=1)[-1]
        gap = float(scores[full[at]] - scores[wanted[at]])
        print(f"{run['kind']} {run['prompt']!r}: token {at} is {full[at]} instead of {wanted[at]}, {gap:.4f} apart")
        assert abs(gap) < MAX_GAP[opened[0]]
    print(f"{n_equal} of {len(recording(opened[0])['runs'])} answers are equal")
    assert n_equal > 0


def test_scores_along_the_answers(opened: tuple[str, LLM]) -> None:
    """After every recorded token, not only up to a difference: its logit is the highest or nearly so."""
    for llm, run in runs(opened):
        answer = run["generated_ids"]
        scores = llm.logits(run["prompt_ids"] + answer[:-1])[len(run["prompt_ids"]) - 1 :]
        for at, (token, row) in enumerate(zip(answer, scores, strict=True)):
            behind = float(row.max() - row[token])
            if behind > 0:
                print(f"{run['kind']} {run['prompt']!r}: token {at}, {token} is {behind:.4f} behind {row.argmax()}")
            assert behind < MAX_GAP_IN_ONE_STEP
