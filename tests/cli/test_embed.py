"""`edgellm embed` and `edgellm rerank` as programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM
from edgellm.testing import tiny_model
from tests.support.encoders import tiny_reranker

Cli = Callable[..., Any]
TEXTS = ["a cat sat", "the dog ran over the hill", "rain"]


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    return str(tiny_reranker(tmp_path / "bert.gguf"))


def test_embed(encoder: str, cli: Cli, tmp_path: Path) -> None:
    with LLM(encoder, threads=1) as llm:
        expected = llm.embed(TEXTS)
        tables = llm.embed(TEXTS, pooling="none")
    done = cli("embed", encoder, *TEXTS)
    assert done.code == 0
    lines = [[float(number) for number in line.split()] for line in done.out.splitlines()]
    assert np.array(lines) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    found = json.loads(cli("embed", encoder, *TEXTS, "--json").out)
    assert [one["index"] for one in found["data"]] == [0, 1, 2]
    assert np.array([one["embedding"] for one in found["data"]]) == pytest.approx(expected, abs=1e-7)
    blocks = cli("embed", encoder, *TEXTS, "--pooling", "none").out.split("\n\n")
    assert [len(block.splitlines()) for block in blocks] == list(map(len, tables))
    one = cli("embed", encoder, "--dimensions", "5", "--no-normalize", stdin=b"a cat sat")
    assert len(one.out.split()) == 5
    assert cli("embed", encoder, "-", stdin=b"rain\n").out == cli("embed", encoder, "rain").out


def test_embed_lines_of_a_file(encoder: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\r\n\n".join(TEXTS) + "\n")
    plain = cli("embed", encoder, *TEXTS).out
    rows = cli("embed", encoder, "-f", str(tmp_path / "texts")).out.splitlines()
    assert (rows[::2], len(rows)) == (plain.splitlines(), 5)  # row N is line N, also past an empty line
    assert cli("embed", encoder, "-f", "-", stdin="\n".join(TEXTS).encode()).out == plain
    done = cli("embed", encoder, *TEXTS, "-o", str(tmp_path / "v.npy"))
    assert (done.code, done.out) == (0, "")
    assert "3 vectors of 128" in done.err
    assert np.load(tmp_path / "v.npy").shape == (3, 128)
    again = cli("embed", encoder, "a", "-o", str(tmp_path / "v.npy"))
    assert (again.code, again.err) == (1, f"edgellm: {tmp_path / 'v.npy'} exists: --force replaces it\n")
    again = cli("embed", encoder, "a", "-o", str(tmp_path / "v.npy"), "--force", "--json")
    assert json.loads(again.out) == {"path": str(tmp_path / "v.npy"), "vectors": 1, "dimensions": 128}
    assert np.load(tmp_path / "v.npy").shape == (1, 128)


def test_embed_refuses(encoder: str, cli: Cli, tmp_path: Path) -> None:
    assert cli("embed", encoder, "a", "-f", "x").code == 2
    (tmp_path / "texts").write_text("a\n" + "a " * 100)
    for arguments, words in (
        (("a " * 100,), "text 0 has 102 tokens"),
        (("a", "--dimensions", "500"), "dimensions is 500"),
        (("a", "--pooling", "none", "-o", str(tmp_path / "v.npy")), "which one .npy file cannot hold"),
        (("-f", str(tmp_path / "nothing")), "nothing"),
        (("-f", str(tmp_path / "texts")), f"line 2 of {tmp_path / 'texts'} has 102 tokens"),
    ):
        done = cli("embed", encoder, *arguments)
        assert done.code == 1
        assert words in done.err
        assert done.out == ""
    assert cli("embed", encoder, "a " * 100, "--truncate").code == 0


def test_rerank(encoder: str, cli: Cli, tmp_path: Path) -> None:
    with LLM(encoder, threads=1) as llm:
        expected = llm.rerank("cat", TEXTS)
    lines = cli("rerank", encoder, "cat", *TEXTS).out.splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [
        [f"{one.score:.4f}", str(one.index), one.document] for one in expected
    ]
    (tmp_path / "texts").write_text("\n".join(TEXTS[1:]))
    done = cli("rerank", encoder, "cat", TEXTS[0], "-f", str(tmp_path / "texts"), "-n", "2", "--json")
    results = json.loads(done.out)["results"]
    assert [one["index"] for one in results] == [one.index for one in expected[:2]]
    assert [one["relevance_score"] for one in results] == pytest.approx([one.score for one in expected[:2]])


def test_rerank_refuses(encoder: str, cli: Cli, tmp_path: Path) -> None:
    assert "there are no documents" in cli("rerank", encoder, "cat").err
    done = cli("rerank", str(tiny_model("llama", tmp_path / "llama.gguf")), "cat", "dog")
    assert done.code == 1
    assert "classifier" in done.err
