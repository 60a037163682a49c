"""
Record what exact arithmetic says about the answers that record.py wrote down.

    python -m pip install gguf
    python tests/data/greedy/exact.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
    python tests/data/greedy/exact.py gemma3-270m gemma-3-270m-q4_k_m.gguf

writes tests/data/greedy/NAME.exact.json: after each token of each answer the N_BEST best next tokens and their logits,
from a copy of the file with every weight dequantized to float32 and a float32 cache (its rounding errors are some
10,000 times smaller than those of a run with quantized activations).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from edgellm import LLM  # noqa: E402
from tests.support.gguf_reader import _Cursor  # noqa: E402
from tests.support.gguf_writer import Value, write_gguf  # noqa: E402

N_BEST = 5


def write_f32(source: Path, target: Path) -> None:
    cursor = _Cursor(source.read_bytes())
    cursor.at = 16
    metadata: dict[str, Value] = {}
    for _ in range(cursor.unpack("<Q")):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.unpack("<I"))
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(source).tensors}
    write_gguf(target, metadata, tensors)


def best(row: np.ndarray) -> list[list[Any]]:
    order = np.argsort(-row)[:N_BEST]
    return [[int(i), round(float(row[i]), 4)] for i in order]


def main(name: str, model: str) -> None:
    runs = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))["runs"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f32.gguf"
        write_f32(Path(model), path)
        with LLM(path, n_ctx=512, kv_type="f32") as llm:
            answers = []
            for run in runs:
                scores = llm.logits(run["prompt_ids"] + run["generated_ids"][:-1])[len(run["prompt_ids"]) - 1 :]
                answers.append([best(row) for row in scores])
                print(len(answers), "of", len(runs))
    target = Path(__file__).parent / f"{name}.exact.json"
    target.write_text(json.dumps(answers, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
