"""
Every type of weights runs in every place of a model, the embedding included, and says what its values in F32 say.

The types with kernels of ours have tests of their own (test_bits.py, test_accuracy.py); here the others, which ggml's
dot products multiply inside our driver, stand beside them. What is left between the two files is the rounding of
activations.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgellm import LLM
from tests.support.blocks import LAYOUTS
from tests.support.reference import nmse
from tests.support.tiny import tiny_tokens

SIZES = {"n_embd": 256, "n_ff": 256, "head_size": 64, "n_head": 4, "n_head_kv": 2}


OWN = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4")
CASES = [(kind, "llama") for kind in LAYOUTS] + [(kind, "llama-moe") for kind in LAYOUTS if kind not in OWN]


@pytest.mark.parametrize(("kind", "arch"), CASES)
def test_a_type_says_what_its_values_say(kind: str, arch: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("edgellm.tensors", reason="this build has no edgellm.tensors")
    from edgellm.tools.quantization import quantize
    from edgellm.tools.quantization.source import Source

    # All experts: with rounded activations another one may be chosen, and then the logits differ by any amount.
    experts = {"n_expert": 3, "n_expert_used": 3} if arch == "llama-moe" else {}
    path = tiny(arch, dtype=f"random {kind}", tied=arch == "llama", **SIZES, **experts)
    with Source(path) as source:
        made = quantize.plan(source, "F32", quantize.Wishes(allow_requantize=True))
        assert sum(t.type == kind.upper() for t in made.tensors) >= 15
        quantize.write(source, made, tmp_path / "f32.gguf")
    tokens = tiny_tokens(24)
    rows = []
    for file in (path, tmp_path / "f32.gguf"):
        with LLM(file, kv_type="f32", n_ctx=256, threads=1) as llm:
            rows.append(llm.logits(tokens))
            if os.environ.get("EDGELLM_CPU_BACKEND") != "ggml":  # equal bits: a promise of our own backend
                np.testing.assert_array_equal(llm.logits(tokens, chunk=1), rows[-1])
    assert nmse(rows[0], rows[1]) < 4e-3
