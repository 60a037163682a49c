"""`edgellm pull`, `ls`, `show`, `rm` and `tokenize`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgellm.cli import _model, _pull
from edgellm.store.source import Progress

Cli = Callable[..., Any]


def test_pull_registers_a_file_in_place(cli: Cli, model: str, home: Path) -> None:
    result = cli("pull", model)
    assert (result.code, result.out) == (0, "")
    assert result.err == "edgellm: tiny is here (100 B): edgellm run tiny\n"
    entry = json.loads(cli("pull", model, "--json").out)
    assert (entry["name"], entry["local"], entry["path"]) == ("tiny", True, model)
    assert not (home / "models" / "blobs").exists()


def test_pull_says_what_is_wrong(cli: Cli, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("hello, I am text")
    for arguments, words in (
        ([str(text)], "not a GGUF model: it begins with 'hello"),
        ([str(tmp_path / "none.gguf")], "does not exist"),
        (["smolm2"], "nearest is 'smollm2'"),
        ([model, "--name", "../x"], "is not a model name"),
        (["http://localhost/x.gguf"], "is not encrypted"),
        (["hf:nonsense"], "hf:ORG/REPO"),
        (["ftp://x/y"], "reads https URLs"),
    ):
        result = cli("pull", *arguments)
        assert (result.code, result.out) == (1, "")
        assert words in result.err
        assert result.err.count("\n") == 1
    monkeypatch.setenv("EDGELLM_OFFLINE", "1")
    assert "EDGELLM_OFFLINE" in cli("pull", "smollm2").err
    assert cli("pull", model).code == 0


def test_ls(cli: Cli, model: str, home: Path) -> None:
    result = cli("ls")
    assert (result.code, result.out) == (0, "")
    assert f"no models in {home / 'models'} yet: try 'edgellm pull smollm2'" in result.err
    assert json.loads(cli("ls", "--json").out) == []
    cli("pull", model, "--name", "mine:1b")
    assert cli("ls").out.splitlines() == ["NAME      SIZE  WHERE     WHAT", f"mine:1b  100 B  in place  {model}"]
    rows = json.loads(cli("ls", "--all", "--json").out)
    assert [(row["name"], row["here"]) for row in rows] == [
        ("mine:1b", True), ("gemma3:270m", False), ("smollm2", False),
    ]  # fmt: skip
    assert "98 MB  not pulled" in cli("ls", "--all").out
    Path(model).unlink()
    assert "file is gone" in cli("ls").out


def test_rm(cli: Cli, model: str) -> None:
    cli("pull", model)
    result = cli("rm", "tiny")
    assert (result.code, result.out, result.err) == (0, "", f"edgellm: tiny removed; {model} stays\n")
    assert Path(model).exists()
    assert cli("rm", "tiny").code == 1
    assert cli("rm").code == 2
    assert cli("rm", "--unfinished").err == "edgellm: 0 B of unfinished downloads removed\n"
    cli("pull", model)
    removed = json.loads(cli("rm", "tiny", "--unfinished", "--json").out)
    assert removed["removed"][0]["name"] == "tiny"
    assert removed["unfinished_bytes"] == 0


FOUND = {
    "version": 3,
    "alignment": 32,
    "metadata": {
        "general.architecture": "llama",
        "general.name": "a\nb\x1b[31m",
        "llama.context_length": 2048,
        "tokenizer.chat_template": "{{ messages }}",
    },
    "tensors": [
        {"name": "a", "shape": [32, 10], "type": "Q8_0", "offset": 0, "n_bytes": 340},
        {"name": "b", "shape": [10], "type": "F32", "offset": 352, "n_bytes": 40},
    ],
}


def test_show(cli: Cli, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_model, "inspect", lambda path, max_array: json.loads(json.dumps(FOUND)))
    cli("pull", model)
    result = cli("show", "tiny")
    assert (result.code, result.err) == (0, "")
    assert "weights        Q8_0 340 B, F32 40 B" in result.out
    assert "context        2048" in result.out
    assert "sha256" in result.out
    assert "\x1b" not in result.out
    assert "32 x 10" not in result.out
    assert "32 x 10" in cli("show", "tiny", "--tensors").out
    report = json.loads(cli("show", model, "--json").out)
    assert (report["tensors"], report["store"], report["path"]) == (2, report["store"], model)
    assert report["store"]["name"] == "tiny"
    assert cli("show", "tiny", "--template").out == "{{ messages }}\n"
    assert cli("show", "nothing").code == 1


class FakeTokenizer:
    """Two bytes a token."""

    def __enter__(self) -> FakeTokenizer:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self.data = text.encode()
        ids = list(range(10, 10 + (len(self.data) + 1) // 2))
        return [1, *ids] if add_special else ids

    def decode(self, ids: list[int], *, keep_special: bool) -> bytes:
        (token,) = ids
        return b"<s>" if token == 1 else self.data[(token - 10) * 2 : (token - 10) * 2 + 2]


def test_tokenize(cli: Cli, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_model, "tokenizer", lambda path: FakeTokenizer())
    assert cli("tokenize", model, "ab\n").out == " 1  '<s>'\n10  'ab'\n11  '\\n'\n"
    report = json.loads(cli("tokenize", model, "--no-special", "--json", stdin="\u20ac!".encode()).out)
    assert report == {
        "model": model,
        "n_tokens": 2,
        "ids": [10, 11],
        "pieces": ["\ufffd", "\ufffd!"],
        "piece_bytes": ["e282", "ac21"],
    }
    assert cli("tokenize", model, "--no-special", "").out == ""


def test_progress_in_a_log_is_a_line_a_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    with _pull.progress("m") as report:
        report(Progress("wait"))
        report(Progress("wait"))
        for done in range(0, 1001, 10):
            report(Progress("download", done * 1000, 1_000_000))
        report(Progress("verify", 5, 10))
        report(Progress("download", 5, None))
    assert capsys.readouterr().err.splitlines() == [
        "edgellm: m: waiting for another pull of it",
        "edgellm: m: 250 kB of 1.0 MB",
        "edgellm: m: 500 kB of 1.0 MB",
        "edgellm: m: 750 kB of 1.0 MB",
        "edgellm: m: 1.0 MB of 1.0 MB",
    ]


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_pull, "sys", SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: True)))
    with _pull.progress("m") as report:
        for stage in ("download", "unpack", "verify"):
            report(Progress(stage, 5, 10))
    assert capsys.readouterr().out == ""


def test_a_damaged_note_is_told(cli: Cli, home: Path, model: str) -> None:
    assert cli("pull", model).code == 0
    [note] = (home / "models" / "manifests").iterdir()
    note.write_bytes(note.read_bytes()[:20])
    listed = cli("ls")
    assert (listed.code, listed.out) == (0, "")
    assert f"{note.name} and pull the model again" in listed.err
    assert "is damaged" in cli("doctor").out
