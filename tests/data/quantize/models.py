"""The tiny models that llama-quantize and ours make smaller: shapes in which mixtures differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgellm.tools.quantization.imatrix import Imatrix
from edgellm.tools.quantization.source import Source
from tests.support.tiny import tiny_model

MODELS = {
    "one": {"n_layer": 1, "n_embd": 256, "n_ff": 512, "n_head": 4, "n_head_kv": 1, "head_size": 64},
    "deep": {"n_layer": 16, "n_embd": 256, "n_ff": 256, "n_head": 4, "n_head_kv": 1, "head_size": 32},
    "tied": {"n_layer": 8, "n_embd": 256, "n_ff": 256, "n_head": 2, "n_head_kv": 2, "head_size": 32, "tied": True},
    "odd": {"n_layer": 8, "n_embd": 96, "n_ff": 256, "n_head": 2, "n_head_kv": 1, "head_size": 24, "tied": True},
    "moe8": {"arch": "llama-moe", "n_layer": 8, "n_embd": 256, "n_ff": 256, "n_head": 2, "n_head_kv": 1,
             "head_size": 32, "n_expert": 8, "n_expert_used": 2},
    "moe4": {"arch": "llama-moe", "n_layer": 8, "n_embd": 256, "n_ff": 256, "n_head": 2, "n_head_kv": 1,
             "head_size": 32, "n_expert": 4, "n_expert_used": 2},
}  # fmt: skip


def make(name: str, folder: Path) -> Path:
    """The model of that name."""
    return tiny_model(folder / f"{name}.gguf", **MODELS[name])  # type: ignore[arg-type]


def importance(path: Path) -> Imatrix:
    """Random importance of every matrix in the layers; one expert was never chosen."""
    found, rng = Imatrix(datasets=["random"], chunk_count=3, chunk_size=512), np.random.default_rng(5)
    with Source(path) as source:
        for weights in source.tensors:
            shape = weights.info.shape
            if len(shape) > 1 and weights.info.name.startswith("blk."):
                n_matrices = shape[2] if len(shape) > 2 else 1
                sums = rng.gamma(0.7, 200, (n_matrices, shape[0])).astype(np.float32)
                counts = np.full(n_matrices, 1536, np.float32)
                if n_matrices > 1:
                    sums[1], counts[1] = 0, 0
                found.sums[weights.info.name], found.counts[weights.info.name] = sums, counts
    return found
