"""Numbers that are none end a step with an error: wherever they arise, in a prompt and in an answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm.testing import tiny_model
from edgellm.tools.gguf_file import GgufFile
from tests.support.tiny import tiny_tokens


def damaged(path: Path, name: str, row: int) -> Path:
    """A tiny model in F32 one of whose numbers, at the end of that row of that tensor, is NaN."""
    tiny_model(path=path, weight_type="F32", tokenizer="test")
    with GgufFile(path) as file:
        tensor = next(t for t in file.tensors if t.name == name)
        offset = file.data_start + tensor.offset + 4 * (tensor.shape[0] * (row + 1) - 1)
    with path.open("r+b") as out:
        out.seek(offset)
        out.write(np.float32(np.nan).tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "row"), [("output_norm.weight", 0), ("blk.0.attn_norm.weight", 0), ("output.weight", 97)]
)
@pytest.mark.parametrize("n", [1, 8, 40])
def test_nan_is_an_error(tmp_path: Path, name: str, row: int, n: int) -> None:
    with edgellm.LLM(damaged(tmp_path / "m.gguf", name, row), n_ctx=128) as llm:
        for _ in range(2):  # what one step has seen does not stay, and is seen again
            with pytest.raises(edgellm.NumericError, match="NaN or infinity"):
                llm.logits(tiny_tokens(n))


def test_a_sound_model_passes(tmp_path: Path) -> None:
    with edgellm.LLM(tiny_model(path=tmp_path / "m.gguf", tokenizer="test"), n_ctx=128) as llm:
        assert np.isfinite(llm.logits(tiny_tokens(40))).all()
