"""
What instructions are counted of, by the target's own Python.

    python on_count.py MODEL N_PROMPT N_TOKENS [ggml]       with ggml's backend in place of ours

One thread, and one slice per step: how often a step is interrupted depends on the time it takes.
"""

import os
import sys

if sys.argv[4:] == ["ggml"]:
    os.environ["EDGELLM_CPU_BACKEND"] = "ggml"

from edgellm import LLM, _native

_native.SLICE_MS = 1_000_000
with LLM(sys.argv[1], n_ctx=256, threads=1) as llm:
    tokens = [(i * 37 + 11) % 250 + 3 for i in range(int(sys.argv[2]))]
    done = llm.generate(tokens, max_tokens=int(sys.argv[3]), temperature=0, ignore_eog=True)
    assert done.n_generated == int(sys.argv[3])
