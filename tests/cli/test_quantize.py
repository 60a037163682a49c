"""`edgellm quantize`, `imatrix` and `eval` as programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import tiny_model

pytest.importorskip("edgellm.tensors", reason="this build has no edgellm.tensors")

Cli = Callable[..., Any]
TEXT = "the cat and the other cat is in the house of the man, and on it goes in the rain. " * 9


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a model and a text."""
    tiny_model(tmp_path / "m.gguf", n_embd=256, n_ff=256, n_layer=1)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def test_types_are_listed_without_a_model(cli: Cli) -> None:
    done = cli("quantize", "no", "matter", "HELP")
    assert (done.code, done.err) == (0, "")
    assert "Q4_K_M" in done.out.splitlines()
    assert cli("quantize", "no", "matter", "Q8_0").code == 2


def test_from_a_text_to_a_small_file(files: Path, cli: Cli) -> None:
    model, text, out = str(files / "m.gguf"), str(files / "text.txt"), str(files / "q.gguf")
    done = cli("imatrix", model, "--text", text, "-o", str(files / "i.gguf"), "--ctx", "64", "--chunks", "2", "--json")
    assert (done.code, json.loads(done.out)["tokens"]) == (0, 128)
    done = cli("quantize", model, out, "q4_0", "--imatrix", str(files / "i.gguf"), "-t", "1")
    assert done.code == 0
    assert "Q4_0" in done.err
    assert cli("quantize", model, out, "Q4_0").code == 1
    figures = []
    for path in (model, out):
        done = cli("eval", "ppl", path, "--text", text, "--ctx", "64", "--json")
        figures.append(json.loads(done.out))
    assert figures[0]["n_tokens"] == figures[1]["n_tokens"] == 31 * figures[0]["n_chunks"]
    assert figures[0]["perplexity"] == pytest.approx(figures[1]["perplexity"], rel=0.2)
    base = str(files / "base")
    assert cli("eval", "kld", model, "--save-base", base, "--text", text, "--ctx", "64").code == 0
    done = cli("eval", "kld", out, "--base", base, "--json")
    assert 0 < json.loads(done.out)["mean"] < 1
    assert "mean divergence" in cli("eval", "kld", out, "--base", base).out


def test_a_dry_run_writes_nothing(files: Path, cli: Cli) -> None:
    done = cli("quantize", str(files / "m.gguf"), str(files / "q.gguf"), "Q8_0", "--dry-run", "--json")
    found = json.loads(done.out)
    assert found["path"] is None
    assert found["file_type"] == "Q8_0"
    assert {t["new_type"] for t in found["tensors"]} == {"Q8_0", "F32"}
    assert found["new_bytes"] < found["n_bytes"]
    assert not (files / "q.gguf").exists()
    assert (
        "blk.0.ffn_up.weight" in cli("quantize", str(files / "m.gguf"), str(files / "q.gguf"), "Q8_0", "--dry-run").out
    )


def test_a_size(files: Path, cli: Cli) -> None:
    out = files / "q.gguf"
    done = cli("quantize", str(files / "m.gguf"), str(out), "--target-size", "400k")
    assert done.code == 0, done.err
    assert 360_000 < out.stat().st_size <= 400_000
    assert (
        "the smallest types take" in cli("quantize", str(files / "m.gguf"), str(out), "--target-size", "9k", "-f").err
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["quantize", "m", "q"], 2, "say what to make"),
        (["quantize", "m", "q", "Q4_0", "--target-size", "1M"], 2, "say what to make"),
        (["quantize", "m", "q", "Q4_0", "--tensor-type", "x"], 2, "--tensor-type takes REGEX=TYPE"),
        (["quantize", "m", "q", "Q4_9"], 1, "no file type"),
        (["quantize", "m", "q", "IQ2_XS"], 1, "needs an importance matrix"),
        (["quantize", "text", "q", "Q4_0"], 1, "not a model"),
        (["quantize", "m", "q", "Q4_0", "--imatrix", "m"], 1, "holds no importance matrix"),
        (["eval", "ppl", "m", "--text", "text", "--ctx", "4096"], 1, "one chunk takes 4096"),
        (["eval", "kld", "m"], 2, "give --base FILE"),
        (["eval", "kld", "m", "--save-base", "q"], 2, "needs --text"),
        (["eval", "kld", "m", "--base", "text"], 1, "no recorded base"),
        (["imatrix", "m", "--text", "text", "-o", "m"], 1, "--force replaces it"),
    ],
)
def test_refusals(files: Path, cli: Cli, arguments: list[str], code: int, says: str) -> None:
    names = {"m": "m.gguf", "q": "q.gguf", "text": "text.txt"}
    done = cli(*[str(files / names[word]) if word in names else word for word in arguments])
    assert done.code == code
    assert says in done.err
    assert not (files / "q.gguf").exists()


def test_the_types_are_listed(files: Path, cli: Cli) -> None:
    assert "Q4_K_M\n" in cli("quantize", str(files / "m.gguf"), "q", "help").out
