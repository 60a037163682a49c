"""What a new user tries by mistake: each file or command gets one sentence that says what to do instead."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM, InvalidArgument, Tokenizer
from edgellm.errors import ModelNotFound
from edgellm.testing import tiny_model
from edgellm.testing.gguf_writer import write_gguf
from tests.support.family_cases import content

Cli = Callable[..., Any]


def lora(path: Path, arch: str, n: int) -> Path:
    """An adapter of one square matrix, n wide."""
    keys = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": arch}
    name, rank = "blk.0.attn_q.weight", 4
    a, b = np.ones((rank, n), np.float32), np.ones((n, rank), np.float32)
    return write_gguf(path, keys, {f"{name}.lora_a": a, f"{name}.lora_b": b})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that fit no command, or not the one they are given to."""
    folder = tmp_path_factory.mktemp("files")
    for arch in ("llama", "bert", "t5", "dream"):
        tiny_model(arch, folder / f"{arch}.gguf")
    for name, key, value in (
        ("family", "general.architecture", "llama9"),
        ("picture", "general.architecture", "clip"),
        ("tokenizer", "tokenizer.ggml.model", "pieces"),
        ("pre", "tokenizer.ggml.pre", "newfangled"),
    ):
        tiny_model("llama", folder / f"{name}.gguf", metadata={key: value})
    keys, tensors = content("llama")
    del tensors["blk.1.ffn_down.weight"]
    write_gguf(folder / "missing.gguf", keys, tensors)
    lora(folder / "lora.gguf", "llama", 128)
    lora(folder / "lora_qwen.gguf", "qwen2", 128)
    lora(folder / "lora_small.gguf", "llama", 64)
    (folder / "text.txt").write_text("and so on, " * 400)
    return folder


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run family.gguf hi", r'general.architecture is "llama9", which this version cannot run; the nearest .*llama'),
        ("run picture.gguf hi", r"no language model but the part .* \(mmproj\); open the language model's own file"),
        ("run missing.gguf hi", r"tensor blk.1.ffn_down.weight is missing; a llama model needs it"),
        ("run tokenizer.gguf hi", r"tokenizer.ggml.model is 'pieces'; this version has gpt2"),
        ("run pre.gguf hi", r"tokenizer.ggml.pre is 'newfangled', .* the nearest"),
        ("run lora.gguf hi", r"an adapter, not a model: open the model it was made for .*--lora FILE"),
        ("run bert.gguf hi", r"bert.gguf is a bert model: it gives embeddings, not text; use .*edgellm embed"),
        ("run dream.gguf hi", r"it fills in a whole text at once \(diffusion\), which this version cannot do"),
        ("run llama.gguf hi --lora lora_qwen.gguf", r"the adapter is for a qwen2 model, and this is a llama model"),
        ("run llama.gguf hi --lora lora_small.gguf", r"for another model: its matrices for blk.0.attn_q.weight are"),
        ("run llama.gguf hi --lora bert.gguf", r"this GGUF file is no adapter: it holds a bert model"),
        ("embed t5.gguf hi", r"t5.gguf is a t5 model whose encoder works for its decoder: it gives no embeddings"),
        ("rerank llama.gguf a b", r"has no classifier, so it cannot rank; use embeddings"),
        ("bench bert.gguf -p 4 -n 0", r"a bert model gives embeddings, not text"),
        ("bench t5.gguf -p 4 -n 0", r"a t5 model answers one text with another"),
        ("eval ppl t5.gguf --text text.txt", r"a t5 model answers one text with another"),
        ("quantize llama.gguf new.gguf Q9_K", r"'Q9_K' is no file type: use one of F32, "),
        ("quantize llama.gguf nowhere/new.gguf Q8_0 --allow-requantize", r"the folder .*nowhere does not exist"),
        ("quantize text.txt new.gguf Q8_0", r"text.txt is a text file, not a model"),
        ("gguf merge llama.gguf new.gguf", r"no part of a split file"),
    ],
)
def test_one_sentence(command: str, says: str, files: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    done = cli(*command.split())
    assert done.code == 1
    line = done.err.splitlines()[-1]
    assert re.search(says, line), line
    assert not (files / "new.gguf").exists()


def test_names_of_the_store_are_taken_everywhere(tmp_path: Path, cli: Cli) -> None:
    path = tiny_model("llama", tmp_path / "a.gguf", weight_type="F16")
    assert cli("pull", str(path), "--name", "mine").code == 0
    assert cli("gguf", "hash", "mine").out == cli("gguf", "hash", str(path)).out
    done = cli("quantize", "mine", str(tmp_path / "b.gguf"), "Q8_0")
    assert done.code == 0, done.err
    done = cli("gguf", "diff", "yours", "mine")
    assert (done.code, "there is no model called 'yours'" in done.err) == (2, True)
    with Tokenizer("mine") as tokenizer:
        assert tokenizer.decode(tokenizer.encode("hello")) == b"hello"
    with pytest.raises(ModelNotFound, match="no model called 'yours'"):
        Tokenizer("yours")
    with LLM("mine", n_ctx=64) as llm:
        assert llm.chat([{"role": "user", "content": "hi"}], max_tokens=1)["model"] == "mine"
        assert repr(llm).startswith("<LLM mine: llama F16")
        with pytest.raises(InvalidArgument, match="texts is None; give a text"):
            llm.embed(None)


def test_names_from_elsewhere(cli: Cli) -> None:
    done = cli("chat", "smollm2")
    assert (done.code, "there is no command 'chat' here: edgellm run MODEL" in done.err) == (2, True)
    assert "if that is a model on the Hub, write hf:org/repo" in cli("run", "org/repo", "hi").err
    assert "if that is a model on the Hub, write hf:org/repo" in cli("pull", "org/repo").err


def test_a_refusal_comes_before_anything_else(tmp_path: Path, cli: Cli) -> None:
    """Not after a line about its missing chat template."""
    path = tiny_model("bert", tmp_path / "plain.gguf", metadata={"tokenizer.chat_template": None})
    done = cli("run", str(path), "hi")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1, done.err


def test_an_encoder_decoder_model_answers_in_a_chat(files: Path, cli: Cli) -> None:
    done = cli("run", str(files / "t5.gguf"), "translate this", "-n", "3")
    assert done.code == 0, done.err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits on the size of files")
def test_a_disk_that_fills_up(files: Path, cli: Cli) -> None:
    import resource

    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, was[1]))
    try:
        done = cli("quantize", str(files / "llama.gguf"), str(files / "full.gguf"), "F32", "--allow-requantize")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)
    assert done.code == 1
    assert re.search(r"full.gguf could not be written \(File too large\): make room", done.err)
    assert not [path for path in files.iterdir() if "full" in path.name]
