"""The interactive chat. `Conversation` is what happens; `interact` is the terminal around it.

Ctrl-C cancels the answer or clears the line; Ctrl-D and /exit leave. The answer goes to standard output and
all the rest, the prompt included, to standard error, so `edgellm run m > answers.txt` keeps the answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgellm.cli import _model, _saved
from edgellm.cli._text import as_options, number, remark, say
from edgellm.cli.run import Settings, new_seed
from edgellm.errors import EdgellmError

if TYPE_CHECKING:
    from edgellm import LLM

HELP = """\
/help             this list
/system [TEXT]    set the system message; without TEXT remove it
/set [NAME VALUE] set temp, top-k, top-p, min-p, seed, n or stats, also to default; alone: show them
/regen            answer the last message again
/undo             take back the last message and its answer
/clear            forget the conversation, keep the settings
/save FILE        write the conversation to FILE; /save! FILE replaces a file that exists
/load FILE        go on with the conversation in FILE
/stats            figures of the last answer
/exit             leave (so does Ctrl-D)
Several lines: end a line with \\, put the text between \"\"\" lines, or press Alt-Enter.
Ctrl-C stops an answer. A message that begins with / is written with // instead."""

_SETTINGS: dict[str, tuple[str, click.ParamType[Any]]] = {
    "temp": ("temperature", click.FloatRange(0, 100)),
    "top-k": ("top_k", click.IntRange(min=0)),
    "top-p": ("top_p", click.FloatRange(0, 1, min_open=True)),
    "min-p": ("min_p", click.FloatRange(0, 1)),
    "seed": ("seed", click.IntRange(0, (1 << 64) - 1)),
    "n": ("max_tokens", click.IntRange(min=0)),
    "stats": ("stats", click.BOOL),
}


class Leave(Exception):  # noqa: N818 - not an error
    """The person wants to go."""


@dataclass
class Conversation:
    """The messages so far and what a line of input does to them."""

    llm: LLM
    model: str
    settings: Settings
    messages: list[dict[str, str]] = field(default_factory=list)
    last: _model.Answer | None = None
    files: set[Path] = field(default_factory=set)  # that hold this conversation: /save may replace them

    def handle(self, line: str) -> None:
        """
        Take one input: a command, or a message to answer.

        Raises:
            Leave: /exit.
        """
        text = line.strip()
        if not text:
            return
        if text.startswith("/") and not text.startswith("//"):
            self._command(text)
            return
        self.messages.append({"role": "user", "content": text[1:] if text.startswith("//") else text})
        self._answer()

    def _command(self, text: str) -> None:
        name, _, rest = text[1:].partition(" ")
        if name == "save!":
            action: Callable[[str], None] | None = self._save_anyway
        else:
            action = getattr(self, f"_do_{name}", None) if name.isidentifier() else None
        if action is None:
            say(f"there is no command /{name[:40]}: /help lists them, and // begins a message with a slash")
            return
        try:
            action(rest.strip())
        except (EdgellmError, OSError, ValueError) as error:
            say(as_options(str(error)))

    # ---- answering ----

    def _answer(self) -> None:
        """Answer the last message; when that fails the message is taken back."""
        answer = _model.Answer()
        try:
            for piece in self._pieces(answer):
                click.echo(piece, nl=False)
        except KeyboardInterrupt:
            answer.finish_reason = "cancelled"
        except EdgellmError as error:
            say(f"{as_options(str(error))} (the message was taken back; /undo or /clear make room)")
            self.messages.pop()
            return
        if answer.text and not answer.text.endswith("\n"):
            click.echo()
        self.last = answer
        if answer.finish_reason == "cancelled":
            say("cancelled")
        elif self.settings.ended_by(answer) == "-n":
            say("stopped at the limit of tokens; /set n raises it")
        elif self.settings.ended_by(answer) == "--ctx":
            full = f"the context of {self.llm.n_ctx} tokens is full"
            say(f"stopped: {full}; /undo or /clear make room, --ctx sets its size")
        if answer.text:
            self.messages.append({"role": "assistant", "content": answer.text})
        else:
            self.messages.pop()
        if self.settings.stats:
            say(answer.summary())

    def _pieces(self, answer: _model.Answer) -> Iterator[str]:
        seed = new_seed() if self.settings.seed is None else self.settings.seed
        sampling = _model.params(**self.settings.sampling(seed))
        if self.settings.raw:
            prompt = "".join(message["content"] for message in self.messages)
            return _model.complete(self.llm, prompt, sampling, answer)
        return _model.chat(self.llm, self._with_system(), sampling, answer)

    def _with_system(self) -> list[dict[str, str]]:
        system = self.settings.system
        return ([{"role": "system", "content": system}] if system is not None else []) + self.messages

    # ---- commands ----

    def _do_help(self, _rest: str) -> None:
        with remark():
            click.echo(HELP, err=True)

    def _do_exit(self, _rest: str) -> None:
        raise Leave

    _do_quit = _do_bye = _do_exit

    def _do_system(self, rest: str) -> None:
        if self.settings.raw:
            raise ValueError("a --raw chat has no system message: write it into the text")
        self.settings = self.settings._replace(system=rest or None)
        say("system message set" if rest else "no system message any more")

    def _do_set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name and not value:
            raise ValueError(f"/set {name} wants a value")
        if name and name not in _SETTINGS:
            raise ValueError(f"there is no setting '{name[:40]}': there are {', '.join(_SETTINGS)}")
        if name:
            attribute, _ = _SETTINGS[name]
            self.settings = self.settings._replace(**{attribute: _setting(name, value.strip())})
        shown = [(key, getattr(self.settings, attribute)) for key, (attribute, _) in _SETTINGS.items()]
        say(", ".join(f"{key} {'default' if value is None else value}" for key, value in shown))

    def _do_regen(self, _rest: str) -> None:
        if self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        if not self.messages:
            raise ValueError("there is nothing to answer again")
        self._answer()

    def _do_undo(self, _rest: str) -> None:
        if not self.messages:
            raise ValueError("there is nothing to take back")
        while self.messages and self.messages.pop()["role"] != "user":
            pass
        say(f"taken back; what is left: {number(len(self.messages), 'message')}")

    def _do_clear(self, _rest: str) -> None:
        self.messages.clear()
        say("the conversation is forgotten")

    def _do_stats(self, _rest: str) -> None:
        say(self.last.summary() if self.last else "there is no answer yet")

    def _do_save(self, rest: str) -> None:
        path = _saved.path_of(rest, "save")
        if path.exists() and path not in self.files:
            raise ValueError(f"{path} exists: /save! {rest} replaces it")
        self._save(path)

    def _save_anyway(self, rest: str) -> None:
        self._save(_saved.path_of(rest, "save!"))

    def _save(self, path: Path) -> None:
        data = {"format": 1, "model": self.model, "system": self.settings.system, "messages": self.messages}
        _saved.write(path, data)
        self.files.add(path)
        say(f"{number(len(self.messages), 'message')} saved to {path}")

    def _do_load(self, rest: str) -> None:
        path = _saved.path_of(rest, "load")
        self.messages, system = _saved.read(path)
        self.files.add(path)
        self.settings = self.settings._replace(system=system)
        unused = "; its system message has no place in a --raw chat" if self.settings.raw and system is not None else ""
        say(f"{number(len(self.messages), 'message')} loaded from {path}{unused}")


def _setting(name: str, text: str) -> Any:
    """
    The value that *text* gives a setting; "default" is what the program begins with.

    Raises:
        ValueError: It is none.
    """
    attribute, kind = _SETTINGS[name]
    if text == "default":
        return Settings._field_defaults[attribute]
    try:
        return kind.convert(text, None, None)
    except click.BadParameter as error:
        words = f"'{text[:40]}' is neither on nor off" if kind is click.BOOL else error.message
        raise ValueError(f"/set {name}: {words}") from None


# ---- the terminal ----


def wants_more(text: str) -> bool:
    """Whether Enter shall begin a new line: the line ends in a backslash, or a block of three quotes is open."""
    return text.endswith("\\") or text.count('"""') % 2 == 1


def joined(text: str) -> str:
    """The input without the marks that made it several lines."""
    text = text.replace("\\\n", "\n")
    stripped = text.strip()
    if stripped.startswith('"""') and stripped.endswith('"""') and len(stripped) >= 6:
        return stripped[3:-3].strip("\n")
    return text


def interact(llm: LLM, model: str, settings: Settings) -> None:
    """Chat until the person leaves."""
    if settings.raw is None and not _model.has_template(llm):
        say("this model has no chat template and may not be made for chat; a common template is used")
    say(f"chat with {model}: /help lists commands, Ctrl-D leaves")
    converse(Conversation(llm, model, settings), reader())


def converse(conversation: Conversation, read: Callable[[], str]) -> None:
    """Hand every input to *conversation* until it or the person ends it."""
    while True:
        try:
            conversation.handle(joined(read()))
        except KeyboardInterrupt:  # noqa: PERF203 - each input fails on its own
            say("Ctrl-D or /exit leaves")
        except (EOFError, Leave):
            return


def reader() -> Callable[[], str]:
    """What reads one input, with history and several lines where the terminal can do that."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.output import create_output
    except ImportError:
        return _plain_reader
    output = create_output(stdout=sys.stderr)
    session: PromptSession[str] = PromptSession(
        history=_history(), key_bindings=_keys(), multiline=True, output=output, prompt_continuation="... "
    )
    return lambda: session.prompt(">>> ")


def _plain_reader() -> str:
    """Lines from a terminal that has nothing better."""
    text = ""
    while True:
        click.echo("... " if text else ">>> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        text += line.rstrip("\n")
        if not wants_more(text):
            return text
        text += "\n"


def _history() -> Any:
    """The inputs of earlier chats, in a file only its owner can read; in memory where that cannot be."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    from edgellm.store.folders import home_folder, make_folder

    path = home_folder() / "chat-history"
    try:
        make_folder(path.parent)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except (OSError, EdgellmError):
        return InMemoryHistory()
    return FileHistory(str(path))


def _keys() -> Any:
    """Enter sends what is complete; Alt-Enter always begins a new line."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: Any) -> None:
        if wants_more(event.current_buffer.text):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys
