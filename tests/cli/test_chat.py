"""The interactive chat: its commands, and the terminal around it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.cli import _chat
from edgellm.cli._chat import Conversation, Leave, converse, joined, wants_more
from edgellm.cli.run import Settings


@pytest.fixture
def talk(llm: Any) -> Conversation:
    return Conversation(llm, "tiny", Settings())


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_messages_build_up(talk: Conversation, llm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    talk.handle("one two")
    talk.handle("three")
    assert said(capsys) == ("ONE TWO \nTHREE \n", "")
    assert [message["role"] for message in llm.calls[1][0]] == ["user", "assistant", "user"]
    talk.handle("   ")
    assert len(llm.calls) == 2
    talk.handle("//slash")
    assert llm.calls[2][0][-1]["content"] == "/slash"


def test_system_undo_regen_clear(talk: Conversation, llm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    talk.handle("/system Be kind.")
    talk.handle("a")
    assert llm.calls[0][0][0] == {"role": "system", "content": "Be kind."}
    talk.handle("/regen")
    assert llm.calls[1][0] == llm.calls[0][0]
    assert llm.calls[1][1].seed != llm.calls[0][1].seed
    talk.handle("b")
    talk.handle("/undo")
    assert [message["content"] for message in talk.messages] == ["a", "A "]
    talk.handle("/clear")
    assert talk.messages == []
    assert talk.settings.system == "Be kind."
    talk.handle("/system")
    assert talk.settings.system is None
    capsys.readouterr()
    for command in ("/undo", "/regen"):
        talk.handle(command)
        assert "there is nothing to" in said(capsys)[1]


def test_set(talk: Conversation, llm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    talk.handle("/set temp 0.25")
    talk.handle("/set n 2")
    talk.handle("/set seed 4")
    talk.handle("/set stats on")
    capsys.readouterr()
    talk.handle("a b c")
    sampling = llm.calls[0][1]
    assert (sampling.temperature, sampling.max_tokens, sampling.seed) == (0.25, 2, 4)
    out, err = said(capsys)
    assert out == "A B \n"
    assert "stopped at the limit" in err
    assert "answer 2 tokens" in err
    for wrong, words in (
        ("/set temp hot", "not a valid float"),
        ("/set warm 1", "no setting"),
        ("/set n", "a value"),
        ("/set stats maybe", "/set stats: 'maybe' is neither on nor off"),
    ):
        talk.handle(wrong)
        assert words in said(capsys)[1]
    talk.handle("/set")
    assert "temp 0.25, top-k default" in said(capsys)[1]
    talk.handle("/set seed default")
    assert "seed default, n 2" in said(capsys)[1]
    talk.handle("/set n default")
    assert "n 1024" in said(capsys)[1]


def test_save_and_load(talk: Conversation, llm: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a chat.json"
    talk.handle("/system S")
    talk.handle("hello \u2603")
    talk.handle(f"/save {file}")
    other = Conversation(llm, "tiny", Settings())
    other.handle(f"/load {file}")
    assert (other.messages, other.settings.system) == (talk.messages, "S")
    assert list(tmp_path.glob("*.tmp")) == []
    capsys.readouterr()
    before = list(other.messages)
    for content in (b"", b"[]", b'{"messages": 3}', b'{"messages": [{"role": "system", "content": 1}]}', b"[" * 50000):
        file.write_bytes(content)
        other.handle(f"/load {file}")
        assert "is not a conversation" in said(capsys)[1]
    other.handle("/load /nowhere/x")
    assert said(capsys)[1] == "edgellm: /nowhere/x cannot be read: No such file or directory\n"
    other.handle("/save /nowhere/x")
    assert said(capsys)[1] == "edgellm: /nowhere/x cannot be written: No such file or directory\n"
    for command in ("save", "save!", "load"):
        other.handle(f"/{command} {tmp_path}")
        assert said(capsys)[1] == f"edgellm: {tmp_path} is a folder: name a file\n"
    other.handle("/save")
    assert "wants the name of a file" in said(capsys)[1]
    assert other.messages == before


def test_save_replaces_only_its_own(talk: Conversation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    other.write_text("mine")
    other.chmod(0o750)
    talk.handle("a")
    for _ in range(2):
        talk.handle(f"/save {own}")
        assert "2 messages saved" in said(capsys)[1]
    talk.handle(f"/save {other}")
    assert said(capsys)[1] == f"edgellm: {other} exists: /save! {other} replaces it\n"
    assert other.read_text() == "mine"
    talk.handle(f"/save! {other}")
    assert json.loads(other.read_text())["messages"] == talk.messages
    assert os.name == "nt" or other.stat().st_mode & 0o777 == 0o750
    again = Conversation(talk.llm, "tiny", Settings())
    again.handle(f"/save {own}")
    again.handle(f"/load {own}")
    capsys.readouterr()
    again.handle(f"/save {own}")
    assert "2 messages saved" in said(capsys)[1]


def test_help_and_unknown_commands(talk: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    talk.handle("/help")
    help_text = said(capsys)[1]
    for name in ("help", "system", "set", "regen", "undo", "clear", "save", "load", "stats", "exit"):
        assert f"/{name}" in help_text
        assert hasattr(talk, f"_do_{name}")
    for wrong in ("/nothing", "/", "/__class__", "/do it"):
        talk.handle(wrong)
        assert "there is no command" in said(capsys)[1]
    talk.handle("/stats")
    assert "no answer yet" in said(capsys)[1]
    with pytest.raises(Leave):
        talk.handle("/exit")


def test_ctrl_c_cancels_the_answer_only(talk: Conversation, llm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    llm.interrupt_after = 1
    talk.handle("a b c")
    assert said(capsys) == ("A \n", "edgellm: cancelled\n")
    assert talk.messages[-1] == {"role": "assistant", "content": "A "}
    talk.handle("/stats")
    assert "ms, answer cancelled after about 1 token\n" in said(capsys)[1]
    llm.interrupt_after = 0
    talk.handle("d e")
    assert len(talk.messages) == 2  # nothing was answered, so nothing was asked


def test_too_long_a_conversation_takes_the_message_back(talk: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    talk.handle("a " * 200)
    assert talk.messages == []
    assert "200 tokens, the context 100 (the message was taken back" in said(capsys)[1]


def test_loop_ends_with_input(talk: Conversation, llm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    inputs: Iterator[Any] = iter(["a", KeyboardInterrupt, "b", EOFError, "never"])

    def read() -> str:
        value = next(inputs)
        if isinstance(value, str):
            return value
        raise value

    converse(talk, read)
    assert said(capsys) == ("A \nB \n", "edgellm: Ctrl-D or /exit leaves\n")


def test_several_lines() -> None:
    assert wants_more("a\\")
    assert wants_more('"""a')
    assert not wants_more('"""a"""')
    assert joined("a\\\nb") == "a\nb"
    assert joined('"""\na\nb\n"""') == "a\nb"
    assert joined("plain") == "plain"


def test_raw_chat_goes_on_with_the_text(llm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    talk = Conversation(llm, "tiny", Settings(raw=True))
    talk.handle("a b")
    assert llm.calls[0][0] == "a b"
    talk.handle("/system x")
    assert talk.settings.system is None
    assert "no system message" in said(capsys)[1]


def test_a_full_context_is_told(talk: Conversation, llm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    llm.n_ctx = 3
    talk.handle("a b")
    assert said(capsys) == (
        "A \n", "edgellm: stopped: the context of 3 tokens is full; /undo or /clear make room, --ctx sets its size\n"
    )  # fmt: skip


def test_history_is_private(home: Path) -> None:
    pytest.importorskip("prompt_toolkit")
    history = _chat._history()
    history.store_string("secret")
    file = home / "chat-history"
    assert "secret" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv.pop(1))
import importlib.util
spec = importlib.util.spec_from_file_location("support", sys.argv.pop(1))
support = importlib.util.module_from_spec(spec)
spec.loader.exec_module(support)
from edgellm.cli import _model, main
from types import SimpleNamespace

class Slow(support.FakeLLM):
    def pieces(self, prompt, sampling):
        for word in super().pieces(prompt, sampling):
            time.sleep(0.7 if "slow" in prompt else 0)
            yield word

_model.load = lambda path, **options: Slow()
_model.params = lambda **values: SimpleNamespace(**values)
sys.exit(main(sys.argv[1:]))
"""


ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # and cursor movements


class Screen:
    """The program on a terminal of its own."""

    def __init__(self, *arguments: str, term: str = "xterm") -> None:
        import pty

        self.master, slave = pty.openpty()
        here = Path(__file__).resolve()
        command = [sys.executable, "-c", PROGRAM, str(here.parents[2] / "src"), str(here.parent / "conftest.py")]
        environment = {**os.environ, "TERM": term, "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [*command, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, text: str, timeout: float = 60) -> str:
        """Read on until *text* comes; what came before it."""
        until = time.monotonic() + timeout
        while text not in self.seen:
            assert time.monotonic() < until, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen = ESCAPES.sub("", self.seen + os.read(self.master, 65536).decode("utf-8", "replace"))
                except OSError:
                    raise AssertionError(f"the program ended with {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text)
        return before

    def ended(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            os.close(self.master)


@pytest.fixture
def screen(home: Path) -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def start(*arguments: str, **options: str) -> Screen:
        screens.append(Screen(*arguments, **options))
        return screens[-1]

    yield start
    for one in screens:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_on_a_terminal(term: str, screen: Callable[..., Screen], model: str) -> None:
    s = screen("run", model, term=term)
    s.wait_for(">>>")
    s.type("hello there\r")
    s.wait_for("HELLO THERE")
    s.wait_for(">>>")
    s.type("slow one" + " more" * 12 + "\r")
    s.wait_for("SLOW ONE")
    s.type("\x03")
    s.wait_for("cancelled", timeout=20)
    s.wait_for(">>>")
    s.type("still here\r")
    s.wait_for("STILL HERE")
    s.wait_for(">>>")
    s.type("\x04")
    assert s.ended() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_several_lines_and_history_on_a_terminal(screen: Callable[..., Screen], model: str, home: Path) -> None:
    s = screen("run", model)
    s.wait_for(">>>")
    s.type("first\\\rsecond\r")
    s.wait_for("FIRST SECOND")
    s.wait_for(">>>")
    s.type("\x1b[A")  # up: the input before
    s.wait_for("second")
    s.type("\x15\x03")
    s.wait_for("leaves")
    s.wait_for(">>>")
    s.type("/exit\r")
    assert s.ended() == 0
    assert "first" in (home / "chat-history").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c_ends_a_single_answer(screen: Callable[..., Screen], model: str) -> None:
    s = screen("run", model, "slow one" + " more" * 12)
    s.wait_for("SLOW")
    s.process.send_signal(signal.SIGINT)
    assert s.ended() == 130
    assert "Traceback" not in s.seen


def test_saved_conversations_are_json(talk: Conversation, tmp_path: Path) -> None:
    talk.handle("a")
    talk.handle(f"/save {tmp_path / 'x'}")
    saved = json.loads((tmp_path / "x").read_text())
    assert saved["format"] == 1
    assert saved["model"] == "tiny"
