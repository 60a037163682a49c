"""
Greedy answers of real models against llama.cpp's, recorded by tests/data/greedy/record.py.

Both engines round activations to 8 bits, but not alike, so where two candidates are close either may win, and the
answers go apart. What is close follows from measurements, not from wishes. Exact arithmetic (the same file dequantized
to float32: tests/data/greedy/exact.py) says how far apart its best two candidates are after each token; the rms
distance of an engine's figure from that is how far the engine strays (0.15 on SmolLM2, 0.2 on Gemma 3, both alike). At
the first difference between two answers, exact arithmetic and our logits must both have the two candidates within
SIGMAS times the strays of both engines together, and ours may stray hardly further than llama.cpp's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM

DATA = Path(__file__).parents[1] / "data" / "greedy"
MODELS = {"smollm2": "smollm2", "gemma3-270m": "gemma3:270m"}  # recording: name in the store
SIGMAS = 3  # at a first difference; seen: 1.5
SIGMAS_ANYWHERE = 4  # at each of some 1,100 tokens
MAX_STRAY = 1.1  # times llama.cpp's

pytestmark = pytest.mark.models


@cache
def recording(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    for run, exact in zip(data["runs"], json.loads((DATA / f"{name}.exact.json").read_text("utf-8")), strict=True):
        run["exact"] = exact  # after each token the best [id, logit]
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


def scores_along(llm: LLM, run: dict[str, Any]) -> np.ndarray:
    """Our logits before each token of the recorded answer."""
    # ggml's depend on how many tokens share a step; the recorded answers came token by token.
    chunk = 1 if os.environ.get("EDGELLM_CPU_BACKEND") == "ggml" else None
    return llm.logits(run["prompt_ids"] + run["generated_ids"][:-1], chunk=chunk)[len(run["prompt_ids"]) - 1 :]


@dataclass(frozen=True)
class Strays:
    """Rms distances, from exact arithmetic, of how far apart its best two candidates are."""

    ours: float
    theirs: float
    rows: list[np.ndarray]  # of each run: scores_along

    def bound(self, sigmas: float) -> float:
        return float(sigmas * np.hypot(self.ours, self.theirs))


@pytest.fixture(scope="module")
def strays(opened: tuple[str, LLM]) -> Strays:
    ours, theirs, rows = [], [], []
    for llm, run in runs(opened):
        rows.append(scores_along(llm, run))
        for row, token, gap, best in zip(rows[-1], run["generated_ids"], run["gaps"], run["exact"], strict=False):
            (first, high), (second, low) = best[:2]
            ours.append(row[first] - row[second] - (high - low))
            if gap is not None and first == token:
                theirs.append(gap - (high - low))
    found = [float(np.sqrt(np.mean(np.square(values)))) for values in (ours, theirs)]
    print(f"{opened[0]}: strays {found[0]:.3f} (ours), {found[1]:.3f} (llama.cpp)")
    return Strays(*found, rows)


def test_strays_no_further_than_llama_cpp(strays: Strays) -> None:
    assert strays.ours < MAX_STRAY * strays.theirs


def test_same_tokens(opened: tuple[str, LLM], strays: Strays) -> None:
    """Equal, or at the first difference the two candidates are as close as rounding allows."""
    n_equal, bound = 0, strays.bound(SIGMAS)
    for (llm, run), rows in zip(runs(opened), strays.rows, strict=True):
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
        exact = dict(run["exact"][at])
        gap = float(rows[at][full[at]] - rows[at][wanted[at]])
        assert full[at] in exact and wanted[at] in exact, "not among the best candidates of exact arithmetic"
        exactly = exact[full[at]] - exact[wanted[at]]
        print(f"{run['kind']} {run['prompt']!r}: token {at} is {full[at]} instead of {wanted[at]},", end=" ")
        print(f"{gap:.4f} ahead, exactly {exactly:.4f}, bound {bound:.4f}")
        assert abs(gap) < bound
        assert abs(exactly) < bound
    print(f"{n_equal} of {len(recording(opened[0])['runs'])} answers are equal")
    assert n_equal > 0


def test_scores_along_the_answers(opened: tuple[str, LLM], strays: Strays) -> None:
    """After every recorded token, not only up to a difference: its logit is the highest or nearly so."""
    bound = strays.bound(SIGMAS_ANYWHERE)
    for (_, run), rows in zip(runs(opened), strays.rows, strict=True):
        for at, (token, row) in enumerate(zip(run["generated_ids"], rows, strict=True)):
            behind = float(row.max() - row[token])
            if behind > 0:
                print(f"{run['kind']} {run['prompt']!r}: token {at}, {token} is {behind:.4f} behind {row.argmax()}")
            assert behind < bound
