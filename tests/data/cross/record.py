"""
Make the model that proofs of cross-built wheels run, and record its answers on this machine.

    python -m tests.data.cross.record        writes mixed.gguf and mixed.json

Every weight type with a kernel of ours stands in one llama: 256 wide, so that super-blocks fit, with few rows. The
answers come from plain C (EDGELLM_CPU_DISABLE): the same bits are expected of every instruction set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.support.blocks import LAYOUTS, random_blocks
from tests.support.tiny import _matrix, tiny_metadata, tiny_tensors, write_gguf

ROOT = Path(__file__).resolve().parents[3]
MODEL = Path(__file__).with_name("mixed.gguf")
TYPES = ("q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4", "q2_k", "q3_k", "q5_k", "q6_k", "iq4_xs")
NAMED = {"token_embd": "q4_0", "output": "q4_k", "blk.0.attn_k": "f32", "blk.1.attn_k": "f16", "blk.0.attn_v": "bf16"}


def make() -> None:
    """The model: floats in small matrices, Q4_0 and Q4_K in the largest, every other type once."""
    metadata = tiny_metadata("llama", n_embd=256, n_ff=256, head_size=32, n_head=8, n_head_kv=1)
    random = np.random.default_rng(5)
    order = iter(TYPES)
    tensors = {}
    for name, array in tiny_tensors(metadata):
        kind = "f32" if array.ndim == 1 else NAMED.get(name.removesuffix(".weight")) or next(order)
        tensors[name] = random_blocks(kind, array.shape, random) if kind in LAYOUTS else _matrix(array, kind)
    assert next(order, None) is None
    write_gguf(MODEL, metadata, tensors)


def main() -> None:
    """Both files."""
    make()
    done = subprocess.run(
        [sys.executable, ROOT / "cross" / "on_target.py", MODEL],
        env={**os.environ, "EDGELLM_CPU_DISABLE": "avx2,neon"}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer.pop("kernels") == "ref"
    MODEL.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n")
    print(MODEL.stat().st_size, answer["tokens"], answer["sha256"])


if __name__ == "__main__":
    main()
