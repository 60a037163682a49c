"""`edgellm gguf` and `edgellm convert`: options, output, exit codes, and what a stop leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm.cli import gguf as commands
from tests.support.gguf_writer import write_gguf
from tests.support.hf_folder import bert_folder, tiny_folder

Cli = Callable[..., Any]


@pytest.fixture
def file(tiny: Callable[..., Path]) -> str:
    return str(tiny("llama"))


def test_dump(cli: Cli, file: str) -> None:
    result = cli("gguf", "dump", file)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].startswith(f"{file}: GGUF 3, ")
    assert any(line.split() == ["llama.block_count", "u32", "2"] for line in lines)
    assert any("'<|im_start|>'" in line and line.endswith(", ...] (296 items)") for line in lines)
    assert any(line.split()[:5] == ["blk.0.attn_k.weight", "F32", "64", "x", "64"] for line in lines)
    assert "TENSORS" not in cli("gguf", "dump", file, "--keys").out
    assert "KEYS" not in cli("gguf", "dump", file, "--tensors").out
    found = json.loads(cli("gguf", "dump", file, "--json").out)
    assert len(next(k for k in found["keys"] if k["key"] == "tokenizer.ggml.tokens")["value"]) == 296
    assert "tensors" not in json.loads(cli("gguf", "dump", file, "--json", "--keys").out)


def test_dump_of_no_model(cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "page.gguf"
    text.write_text("<!DOCTYPE html><html>")
    result = cli("gguf", "dump", str(text))
    assert (result.code, result.out) == (1, "")
    assert "HTML page" in result.err
    assert cli("gguf", "dump", str(tmp_path / "none")).code == 2
    empty = write_gguf(tmp_path / "empty.gguf", {})
    assert "0 TENSORS\nnone" in cli("gguf", "dump", str(empty)).out


def test_hash_and_check(cli: Cli, file: str, tmp_path: Path) -> None:
    result = cli("gguf", "hash", file)
    assert result.out.splitlines()[0].startswith("sha256    ")
    assert result.out.splitlines()[0].endswith(f"{Path(file).name}:token_embd.weight")
    manifest = tmp_path / "manifest"
    blob = tmp_path / "sha256-0123"  # what the store's files are called
    blob.write_bytes(Path(file).read_bytes())
    for name in (file, str(blob)):
        manifest.write_text(cli("gguf", "hash", name).out)
        assert cli("gguf", "hash", file, "--check", str(manifest)).code == 0
    manifest.write_text(result.out)
    manifest.write_text(result.out.replace(result.out[10:20], "0123456789"))
    result = cli("gguf", "hash", file, "--check", str(manifest))
    assert result.code == 1
    assert result.out.splitlines()[0].endswith("differs")
    assert "1 of 23 digests are not as" in result.err
    assert json.loads(cli("gguf", "hash", file, "--json", "-a", "sha1").out)[0]["algorithm"] == "sha1"
    rows = json.loads(cli("gguf", "hash", file, "--check", str(manifest), "--json").out)
    assert [row["verdict"] for row in rows].count("differs") == 1
    assert cli("gguf", "hash", file, "--check", str(manifest), "-a", "sha1").code == 2


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("2G", 2 * 10**9), ("500M", 5 * 10**8), ("1.5GiB", 1610612736), ("7kb", 7000), ("42", 42)]
)
def test_sizes(text: str, n_bytes: int) -> None:
    assert commands.size(text) == n_bytes


def test_split_and_merge(cli: Cli, file: str, tmp_path: Path) -> None:
    prefix = str(tmp_path / "part")
    assert cli("gguf", "split", file, prefix).code == 2
    assert "write 500M, 2G or 2GiB" in cli("gguf", "split", file, prefix, "--max-size", "2 parsecs").err
    rows = json.loads(cli("gguf", "split", file, prefix, "--max-size", "200K", "--json").out)
    assert all(row["n_bytes"] <= 200_000 for row in rows)
    result = cli("gguf", "split", file, prefix, "--max-size", "200K")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "exists: --force replaces it" in result.err
    result = cli("gguf", "split", file, prefix, "--max-tensors", "8", "--force")
    assert result.err == f"edgellm: 3 parts, the first is {prefix}-00001-of-00003.gguf\n"
    whole = str(tmp_path / "whole.gguf")
    assert "has all of 3 parts" in cli("gguf", "merge", f"{prefix}-00001-of-00003.gguf", whole).err
    assert Path(whole).read_bytes() == Path(file).read_bytes()


def test_set(cli: Cli, file: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out.gguf")
    assert cli("gguf", "set", file, "general.name", "x").code == 2
    assert cli("gguf", "set", file, "general.name", "-o", out).code == 2
    result = cli("gguf", "set", file, "general.name", "x", "-o", out)
    assert result.err == f"edgellm: {out}: general.name (str) is 'x', was 'tiny llama'\n"
    result = cli("gguf", "set", out, "llama.context_length", "777", "--in-place", "--json")
    assert json.loads(result.out) == {
        "path": out, "key": "llama.context_length", "type": "u32", "old": 512, "new": 777,
    }  # fmt: skip
    assert cli("pull", out, "--name", "mine").code == 0
    renamed = str(tmp_path / "renamed.gguf")
    assert cli("gguf", "set", "mine", "general.name", "y", "-o", renamed).code == 0
    assert cli("show", renamed).code == 0
    result = cli("gguf", "set", "mine", "general.name", "z", "--in-place")  # a file alone can be changed where it lies
    assert result.code == 2
    assert "File 'mine' does not exist" in result.err
    assert "use -o OUT instead" in cli("gguf", "set", out, "general.name", "xy", "--in-place").err
    template = tmp_path / "chat.jinja"
    template.write_text("{{ 'größe' }}\n")
    copy = str(tmp_path / "copy.gguf")
    assert cli("gguf", "set", out, "tokenizer.chat_template", "--from", str(template), "-o", copy).code == 0
    assert cli("show", copy, "--template").out == "{{ 'größe' }}\n\n"
    plain = str(write_gguf(tmp_path / "plain.gguf", {}))
    assert cli("show", plain, "--template").err == f"edgellm: {plain} has no chat template\n"


def test_diff(cli: Cli, file: str, tmp_path: Path, tiny: Callable[..., Path]) -> None:
    result = cli("gguf", "diff", file, file)
    assert (result.code, result.out) == (0, "")
    result = cli("gguf", "diff", file, str(tiny("llama", dtype="q8_0", n_layer=1)))
    assert result.code == 1
    assert "~ llama.block_count (u32) 2 -> 1" in result.out.splitlines()
    assert any(
        line.startswith("~ token_embd.weight F32 -> Q8_0, values differ by up to 0.0")
        for line in result.out.splitlines()
    )
    assert "- blk.1.attn_k.weight F32 64 x 64" in result.out.splitlines()
    assert json.loads(cli("gguf", "diff", file, file, "--json").out)["same"] is True
    assert "values" not in cli("gguf", "diff", file, str(tiny("llama", seed=9)), "--no-values").out


def test_convert(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    folder = tiny_folder(tmp_path / "my-model", dtype="F16")
    monkeypatch.chdir(tmp_path)
    result = cli("convert", str(folder))
    assert (
        result.err == "edgellm: my-model-F16.gguf: llama, F16, 39 tensors, 332 kB; tokenizer gpt2 (qwen2), 296 tokens\n"
    )
    assert cli("convert", str(folder)).code == 1
    made = json.loads(cli("convert", str(folder), "--force", "--json").out)
    assert (made["path"], made["type"], made["warnings"]) == ("my-model-F16.gguf", "F16", [])
    assert json.loads(cli("run", "my-model-F16.gguf", "hello", "-n", "1", "--json").out)["tokens"]["generated"] == 1
    bert = bert_folder(tmp_path / "bert")
    (bert / "modules.json").unlink()
    assert "does not say how to pool" in cli("convert", str(bert), "-o", "bert.gguf", "--type", "q8_0").err
    (folder / "config.json").write_text('{"architectures": ["ElmanForCausalLM"]}')
    result = cli("convert", str(folder), "--force")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "ElmanForCausalLM is not among" in result.err


def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    """A copy of 2 GB of zeros (a sparse file) is stopped after its first bytes."""
    big = write_gguf(tmp_path / "big.gguf", {"general.architecture": "llama"}, {"t": np.zeros(8, np.float32)})
    head = big.read_bytes().replace((8).to_bytes(8, "little") + bytes(4), (1 << 29).to_bytes(8, "little") + bytes(4))
    big.write_bytes(head)
    with big.open("rb+") as sparse:
        sparse.truncate(len(head) + (1 << 31))
    command = [sys.executable, "-m", "edgellm", "gguf", "set", str(big), "a", "1", "-o", str(tmp_path / "out.gguf")]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        for _ in range(2000):
            if any(p.name.endswith(".part") and p.stat().st_size > 1 << 22 for p in tmp_path.iterdir()):
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert [p.name for p in tmp_path.iterdir()] == ["big.gguf"]
