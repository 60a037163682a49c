"""A model that needs no file: it answers with the words of the prompt in capitals, one a token."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgellm.cli import _model, main
from edgellm.errors import ContextOverflow

TIMINGS = SimpleNamespace(prefill_ms=2.0, decode_ms=4.0, prefill_per_s=500.0, decode_per_s=250.0, first_token_ms=3.0)


class FakeLLM:
    """What the commands use of an LLM; `calls` records what it was asked."""

    def __init__(self, *, template: bool = True, n_ctx: int = 100) -> None:
        self.metadata = {"tokenizer.chat_template": "..."} if template else {}
        self.n_ctx = n_ctx
        self.calls: list[tuple[Any, Any]] = []
        self.interrupt_after: int | None = None
        self.closed = False

    def __enter__(self) -> FakeLLM:
        return self

    def __exit__(self, *args: object) -> None:
        self.closed = True

    def words(self, prompt: str, sampling: Any) -> tuple[list[str], str]:
        if len(prompt.split()) > self.n_ctx:
            raise ContextOverflow(f"the prompt has {len(prompt.split())} tokens, the context {self.n_ctx}")
        words = [word.upper() + " " for word in prompt.split()]
        limit = min(getattr(sampling, "max_tokens", None) or 1 << 30, self.n_ctx - len(words))
        return words[:limit], "stop" if len(words) <= limit else "length"

    def pieces(self, prompt: str, sampling: Any) -> Iterator[str]:
        for number, word in enumerate(self.words(prompt, sampling)[0]):
            if number == self.interrupt_after:
                raise KeyboardInterrupt
            yield word

    def stream(self, prompt: str, sampling: Any) -> Iterator[Any]:
        self.calls.append((prompt, sampling))
        words, reason = self.words(prompt, sampling)
        for word in self.pieces(prompt, sampling):
            yield SimpleNamespace(text=word, finish_reason=None, completion=None)
        done = SimpleNamespace(
            n_prompt=len(prompt.split()), n_generated=len(words), finish_reason=reason, timings=TIMINGS
        )
        yield SimpleNamespace(text="", finish_reason=reason, completion=done)

    def chat(self, messages: Sequence[dict[str, str]], sampling: Any, *, stream: bool) -> Iterator[dict[str, Any]]:
        assert stream
        self.calls.append(([dict(message) for message in messages], sampling))
        prompt = messages[-1]["content"]
        words, reason = self.words(prompt, sampling)
        yield {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]}
        for word in self.pieces(prompt, sampling):
            yield {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(words)}
        yield {"choices": [], "usage": usage, "timings": vars(TIMINGS)}


class Result:
    """What a run of the program left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Terminal(io.TextIOWrapper):
    """Standard input that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    for name in ("EDGELLM_OFFLINE", "EDGELLM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def llm(home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLLM:
    """Stands in for every model that is loaded."""
    fake = FakeLLM()
    monkeypatch.setattr(_model, "load", lambda path, **options: fake)
    monkeypatch.setattr(_model, "params", lambda **values: SimpleNamespace(**values))
    return fake


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A file that passes for a model."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(96))
    return str(path)


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the program in this process: ``cli("run", model, "hi", stdin=b"")``."""

    def run(*arguments: str, stdin: bytes = b"", terminal: bool = False) -> Result:
        kind = Terminal if terminal else io.TextIOWrapper
        monkeypatch.setattr(sys, "stdin", kind(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
