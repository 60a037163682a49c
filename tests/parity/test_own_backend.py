"""The preview CPU backend: same bits for any chunk and thread count, in every run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

SCRIPT = """
import sys
from edgellm import LLM
tokens = [i * 37 % 250 for i in range(90)]
seen = set()
for threads in (1, 2, 3, 8):  # 8: more than cores, so that some lose theirs and their work is done again
    with LLM(sys.argv[1], n_ctx=256, threads=threads) as llm:
        for chunk in (90, 36, 36, 36, 12, 5, 1):
            seen.add(llm.logits(tokens, chunk=chunk).tobytes())
print(len(seen))
"""


class Tiny(Protocol):
    def __call__(self, arch: str) -> Path: ...


def test_same_bits(tiny: Tiny) -> None:
    environment = os.environ | {"EDGELLM_CPU_BACKEND": "edgellm"}
    for arch in ("llama", "gemma3"):
        command = [sys.executable, "-c", SCRIPT, str(tiny(arch))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout.strip() == "1", done.stdout + done.stderr
