"""Our CPU backend: how many regions a layer takes, nothing left to ggml, and ggml's backend agrees."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgellm import LLM, Unsupported
from tests.parity.test_fixtures import NAMES
from tests.parity.test_parity import VARIANTS
from tests.support.blocks import LAYOUTS
from tests.support.reference import nmse
from tests.support.tiny import tiny_tokens

pytestmark = pytest.mark.skipif(os.environ.get("EDGELLM_CPU_BACKEND") == "ggml", reason="about our own backend")

Tiny = Callable[..., Path]
PLAN = re.compile(r"plan: (\d+) regions, (\d+) rows at most, left to ggml: (.*)")


def plans(path: Path, caplog: pytest.LogCaptureFixture, *, rows: int, n_threads: int = 2) -> list[tuple[int, str]]:
    """Regions of each plan that reading *rows* tokens at a time makes, and what it leaves to ggml."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "edgellm"), LLM(path, n_ctx=256, threads=n_threads, kv_type="f32") as llm:
        llm.logits([5] * rows * 2, chunk=rows)
        llm.generate([5] * rows, max_tokens=1, temperature=0)
    with caplog.at_level(logging.DEBUG, "edgellm"), LLM(path, n_ctx=64) as llm:
        llm.tokenizer  # noqa: B018 - opening a model hands out the messages of the one before
    found = [match for match in map(PLAN.fullmatch, caplog.messages) if match]
    assert found, caplog.messages
    return [(int(match[1]), match[3]) for match in found]


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_left_to_ggml(variant: str, tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    arch, options = VARIANTS[variant]
    for rows in (1, 3, 40):
        assert {left for _, left in plans(tiny(arch, **options), caplog, rows=rows)} == {"nothing"}


@pytest.mark.parametrize("name", NAMES or ["none"])
def test_nothing_is_left_of_recorded_models(name: str, shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    for rows in (1, 40):
        path = shared / "data" / "archs" / f"{name}.gguf"
        try:
            assert {left for _, left in plans(path, caplog, rows=rows)} == {"nothing"}
        except Unsupported as e:
            pytest.skip(str(e))


@pytest.mark.parametrize("name", NAMES or ["none"])
def test_bits_of_recorded_models(name: str, shared: Path) -> None:
    """Every family's logits are the same however its tokens are cut into steps and however many threads there are."""
    tokens, found = [(7 * i + 3) % 100 for i in range(45)], set()
    for chunk, threads in ((45, 1), (1, 1), (7, 2), (20, 3)):
        try:
            with LLM(shared / "data" / "archs" / f"{name}.gguf", n_ctx=64, threads=threads) as llm:
                found.add(llm.logits(tokens, chunk=chunk).tobytes())
        except Unsupported as e:
            pytest.skip(str(e))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("arch", "few", "many"),
    [("llama", 5, 9), ("mistral3", 5, 9), ("gemma3", 5, 9), ("llama-moe", 7, 12), ("mamba2", 6, 9)],
)
def test_regions_per_layer(arch: str, few: int, many: int, tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """docs/ARCHITECTURE.md names these numbers."""
    for rows, expected in ((1, few), (40, many)):
        counts = [max(n for n, _ in plans(tiny(arch, n_layer=n), caplog, rows=rows)) for n in (2, 3)]
        assert counts[1] - counts[0] == expected, (rows, counts)


SCRIPT = """
import sys
import numpy as np
from edgellm import LLM
tokens = [int(i) for i in sys.argv[2].split(",")]
found = {}
for path in sys.argv[3:]:
    with LLM(path, n_ctx=128, threads=1, kv_type="f32") as llm:
        found[path] = llm.logits(tokens)
np.savez(sys.argv[1], **found)
"""


def test_every_type_as_ggml_has_it(tiny: Tiny, tmp_path: Path) -> None:
    """Every type of weights, in dense layers and in experts: both backends' logits, but for rounding."""
    sizes = {"n_embd": 256, "n_ff": 256, "head_size": 64, "n_head": 4}
    everyone = {"n_expert": 3, "n_expert_used": 3}  # rounding cannot choose another
    paths = [tiny("llama", dtype=f"random {kind}", **sizes) for kind in LAYOUTS]
    paths += [tiny("llama-moe", dtype=f"random {kind}", **sizes, **everyone) for kind in LAYOUTS]
    tokens = tiny_tokens(40)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "ggml.npz"), ",".join(map(str, tokens)), *map(str, paths)]
    subprocess.run(command, env=os.environ | {"EDGELLM_CPU_BACKEND": "ggml"}, check=True, timeout=120)
    theirs = np.load(tmp_path / "ggml.npz")
    for path in paths:
        with LLM(path, n_ctx=128, threads=1, kv_type="f32") as llm:
            assert nmse(llm.logits(tokens), theirs[str(path)]) < 1e-3, path.name
