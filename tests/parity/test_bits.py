"""
Reproducibility: the same bits for one sequence, whatever shares its steps and however they are cut and computed.

docs/reproducibility.md says what is promised. Weights are random blocks of each type, so that no type needs a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgellm import LLM
from edgellm.testing import ARCHITECTURES as ARCHITECTURES_OF_ALL_FAMILIES
from edgellm.testing import tiny_model
from tests.support.tiny import tiny_tokens

pytestmark = pytest.mark.skipif(os.environ.get("EDGELLM_CPU_BACKEND") == "ggml", reason="a promise of our own backend")

Tiny = Callable[..., Path]

# Types that have kernels of ours on every instruction set, and types that ggml's dot products compute in our driver.
OWN = ("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
OWN += ("iq4_nl", "iq4_xs", "mxfp4")
GGML = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "tq1_0", "tq2_0", "nvfp4", "q1_0", "q2_0")
ARCHITECTURES = ("llama", "gemma3", "llama-moe")

CHUNKS = (1, 5, 32, 512)
THREADS = (1, 2, 3)
BATCHES = (1, 2, 7, 32)
LENGTH = 75


def model(tiny: Tiny, arch: str, kind: str) -> Path:
    """Wide enough for whole super-blocks in every matrix."""
    dtype = kind if kind in ("f32", "f16", "bf16") else f"random {kind}"
    return tiny(arch, dtype=dtype, n_embd=256, n_ff=256, head_size=64, n_head=4, n_head_kv=2, n_ctx=1024)


def digest(llm: LLM, tokens: list[int], **options: int) -> str:
    return hashlib.sha256(llm.logits(tokens, **options).tobytes()).hexdigest()


def ways(llm: LLM, tokens: list[int]) -> Iterator[tuple[str, str]]:
    """Each way of computing the logits of *tokens*: what it is, and a digest of the logits."""
    for chunk in CHUNKS:
        yield f"chunk {chunk}", digest(llm, tokens, chunk=chunk)
    for batch in BATCHES:
        strangers = [tiny_tokens(20 + 9 * i % 60, seed=i) for i in range(batch - 1)]
        place = (batch - 1) // 2
        for chunk in (3, 64):
            rows = llm.logits([*strangers[:place], tokens, *strangers[place:]], chunk=chunk)[place]
            yield f"batch {batch}, chunk {chunk}", hashlib.sha256(rows.tobytes()).hexdigest()


def differing(path: Path, tokens: list[int], threads: tuple[int, ...] = THREADS, **options: int) -> list[str]:
    """The ways whose bits are not those of the first; none are expected."""
    expected, bad = "", []
    for n in threads:
        with LLM(path, n_ctx=1024, n_seqs=32, threads=n, **options) as llm:
            for name, found in ways(llm, tokens):
                expected = expected or found
                if found != expected:
                    bad.append(f"threads {n}, {name}")
    return bad


@pytest.mark.parametrize("kind", OWN + GGML)
def test_every_type(kind: str, tiny: Tiny) -> None:
    tokens = tiny_tokens(LENGTH)
    assert differing(model(tiny, "llama", kind), tokens) == []


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture(arch: str, tiny: Tiny) -> None:
    for kind in ("q8_0", "q4_k"):
        assert differing(model(tiny, arch, kind), tiny_tokens(LENGTH)) == [], kind


def test_every_family(tmp_path: Path) -> None:
    """Whatever lets positions see each other: all kinds of attention, scans, convolutions, linear attention."""
    tokens = tiny_tokens(LENGTH, n_vocab=100)
    strangers = [tiny_tokens(20 + 9 * i, n_vocab=100, seed=i) for i in range(6)]
    wrong, n_families = [], 0
    for arch in ARCHITECTURES_OF_ALL_FAMILIES:
        path, seen = tiny_model(arch, tmp_path / f"{arch}.gguf"), set()
        for threads in (1, 3):
            with LLM(path, n_ctx=128, n_seqs=7, threads=threads) as llm:
                if not llm.info.gives_logits or not llm.info.causal:
                    break
                seen |= {digest(llm, tokens, chunk=chunk) for chunk in CHUNKS}
                rows = llm.logits([*strangers[:3], tokens, *strangers[3:]], chunk=64)[3]
                seen.add(hashlib.sha256(rows.tobytes()).hexdigest())
        n_families += bool(seen)
        if len(seen) > 1:
            wrong.append(arch)
        path.unlink()
    assert wrong == []
    assert n_families > 100


@pytest.mark.parametrize("arch", ["llama", "gemma3", "llama-moe"])
def test_more_threads_than_cores(arch: str, tiny: Tiny) -> None:
    """Some lose their core, and their work is done again."""
    tokens = tiny_tokens(90)
    seen = set()
    for threads in (1, 2, 8):
        with LLM(model(tiny, arch, "q8_0"), n_ctx=256, threads=threads) as llm:
            seen |= {digest(llm, tokens, chunk=chunk) for chunk in (90, 36, 36, 36, 12, 5, 1)}
    assert len(seen) == 1


@pytest.mark.parametrize("kind", OWN + GGML)
def test_experts_of_every_type(kind: str, tiny: Tiny) -> None:
    assert differing(model(tiny, "llama-moe", kind), tiny_tokens(40), threads=(2,)) == []


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_long(arch: str, tiny: Tiny) -> None:
    """More than one step of 512 and more than two segments of attention; three types of cache."""
    tokens = tiny_tokens(530)
    for kv_type in ("f16", "f32", "q8_0"):
        with LLM(model(tiny, arch, "q4_0"), n_ctx=1024, threads=2, kv_type=kv_type) as llm:  # type: ignore[arg-type]
            assert len({digest(llm, tokens, chunk=chunk) for chunk in (512, 32, 5)}) == 1, kv_type


# ---- instruction sets ------------------------------------------------------------------------

VARIANTS = {"all": "", "avx2": "avx512,avxvnni", "avxvnni": "avx512", "ref": "avx2"}
SCRIPT = """
import hashlib, json, sys
from edgellm import LLM
from edgellm.testing import ARCHITECTURES as ARCHITECTURES_OF_ALL_FAMILIES
from edgellm.testing import tiny_model
tokens, paths = json.loads(sys.argv[1])
found = {}
for path in paths:
    with LLM(path, n_ctx=128, threads=2) as llm:
        found["isa"] = llm.isa
        for chunk in (1, 3, 50):
            rows = llm.logits(tokens, chunk=chunk)
            found[path, chunk] = hashlib.sha256(rows.tobytes()).hexdigest()
print(json.dumps({str(key): value for key, value in found.items()}))
"""


def test_every_instruction_set(tiny: Tiny) -> None:
    """Types with kernels of ours: the same logits from plain C, AVX2, AVX-VNNI and AVX-512."""
    paths = [str(model(tiny, "llama", kind)) for kind in OWN]
    paths += [str(model(tiny, arch, kind)) for arch in ("gemma3", "llama-moe") for kind in ("f32", "q8_0", "q4_k")]
    job = json.dumps([tiny_tokens(50), paths])
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", SCRIPT, job],
            env=os.environ | {"EDGELLM_CPU_DISABLE": disabled},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, disabled in VARIANTS.items()
    }
    results = {name: json.loads(process.communicate(timeout=300)[0]) for name, process in running.items()}
    used = {name: result.pop("isa") for name, result in results.items()}
    assert used["ref"] == "ref"
    for name, result in results.items():
        assert {key for key in result if result[key] != results["ref"][key]} == set(), f"{name}: {used[name]}"


# ---- a real model ----------------------------------------------------------------------------


def digests_of_smollm2(path: Path) -> set[str]:
    """Digests of one sequence's logits over threads, chunks and batches; one is expected."""
    tokens, seen = tiny_tokens(40, n_vocab=49_000), set()
    for threads in THREADS:
        with LLM(path, n_ctx=256, n_seqs=32, threads=threads) as llm:
            seen |= {digest(llm, tokens, chunk=chunk) for chunk in CHUNKS[1:]}
            if threads == 2:
                seen.add(digest(llm, tokens, chunk=1))
                for batch in BATCHES[1:]:
                    strangers = [tiny_tokens(5, n_vocab=49_000, seed=i) for i in range(batch - 1)]
                    rows = llm.logits([*strangers, tokens], chunk=9)[-1]
                    seen.add(hashlib.sha256(rows.tobytes()).hexdigest())
    return seen


@pytest.mark.models
def test_smollm2(real_model: Callable[[str], Path]) -> None:
    assert len(digests_of_smollm2(real_model("smollm2"))) == 1


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K", "Q2_K"])
def test_smollm2_in_other_types(kind: str, real_model: Callable[[str], Path], tmp_path: Path) -> None:
    """Between them Q4_0, Q8_0, Q3_K and Q6_K; every type stands in the tiny models above."""
    quantization = pytest.importorskip("edgellm.tools.quantization.quantize")
    source = pytest.importorskip("edgellm.tools.quantization.source")
    wishes = quantization.Wishes(allow_requantize=True)
    with source.Source(real_model("smollm2")) as opened:
        quantization.write(opened, quantization.plan(opened, kind, wishes, None), tmp_path / "m.gguf", threads=2)
    assert len(digests_of_smollm2(tmp_path / "m.gguf")) == 1
