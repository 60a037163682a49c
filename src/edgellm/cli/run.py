"""``edgellm run``: one question and its answer, or a chat."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from edgellm.cli import STARTED, _model, _options
from edgellm.cli._text import number, print_json, say
from edgellm.errors import InvalidArgument

if TYPE_CHECKING:
    from edgellm import LLM

MAX_TOKENS = 1024
NEEDS_FACTOR = ("linear", "yarn", "ntk")  # "dynamic" has the context's length
FILE_FACTOR = {"rope.scaling.factor", "rope.scale_linear"}


class Settings(NamedTuple):
    """What the options say about the answer; None: the library's default."""

    max_tokens: int = MAX_TOKENS  # 0: until the context is full
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    system: str | None = None
    raw: bool | None = None  # None: raw when the file has no chat template
    heal: bool = False
    stop: tuple[str, ...] = ()
    stats: bool = False

    def sampling(self, seed: int) -> dict[str, Any]:
        """The values for SamplingParams."""
        return {
            "max_tokens": self.max_tokens or None,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "seed": seed,
            "token_healing": self.heal,
            "stop": self.stop,
        }

    def ended_by(self, answer: _model.Answer) -> str | None:
        """What cut *answer* short: "-n", "--ctx", or None."""
        if answer.finish_reason != "length":
            return None
        return "-n" if self.max_tokens and answer.n_generated >= self.max_tokens else "--ctx"


@click.command("run")
@click.argument("model")
@click.argument("prompt", required=False)
@click.option(
    "-n", "--max-tokens", type=click.IntRange(min=0), default=MAX_TOKENS, show_default=True,
    help="Tokens the answer may have; 0: until the context is full.",
)  # fmt: skip
@click.option(
    "--temp",
    "temperature",
    type=click.FloatRange(0, 100),
    help="Temperature; 0 always takes the most likely token.  [default: 0.8]",
)
@click.option(
    "--top-k", type=click.IntRange(min=0), help="Choose among the K most likely tokens; 0: all.  [default: 40]"
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    help="Keep the likeliest tokens that sum to probability P.  [default: 0.95]",
)
@click.option(
    "--min-p", type=click.FloatRange(0, 1), help="Drop tokens less likely than P times the likeliest.  [default: 0.05]"
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 64) - 1),
    help="Repeat an answer: same seed, prompt and options.  [default: a new one]",
)
@click.option(
    "--stop", multiple=True, metavar="TEXT", help="End the answer before TEXT, which is left out. May be repeated."
)
@click.option("--system", help="The system message of the chat.")
@click.option(
    "--raw/--chat",
    default=None,
    help="Continue the prompt as it is, or put it into the chat template.  [default: chat, raw for files without one]",
)
@click.option(
    "--heal",
    is_flag=True,
    help="The prompt may end inside a word: its last token may grow into a longer one. For text that is continued, "
    "not for chats.",
)
@click.option(
    "--ctx",
    type=click.IntRange(0, 1 << 24),
    default=0,
    help="Tokens of context.  [default: what the model was trained for, as memory allows]",
)
@click.option(
    "--rope-scaling",
    type=click.Choice(["none", "linear", "yarn", "ntk", "dynamic"]),
    help="Stretch the context in this way.  [default: as the file says]",
)
@click.option("--rope-factor", type=click.FloatRange(0.001, 10000), help="How many times longer the context is to be.")
@click.option("--rope-base", type=click.FloatRange(1), help="Base of the rotary angles.")
@click.option("--rope-original-ctx", type=click.IntRange(1), help="Tokens the model was trained for before stretching.")
@click.option(
    "--lora",
    "adapters",
    multiple=True,
    metavar="FILE[=SCALE]",
    help="Use a LoRA adapter, at a strength other than 1 if you say so. May be repeated.",
)
@_options.threads
@click.option("--stats", is_flag=True, help="Print one line of figures to standard error.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of text, when the answer is complete."
)
def command(
    model: str,
    prompt: str | None,
    ctx: int,
    rope_scaling: str | None,
    rope_factor: float | None,
    rope_base: float | None,
    rope_original_ctx: int | None,
    adapters: tuple[str, ...],
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Ask MODEL a question, or chat with it.

    MODEL is a .gguf file or the name of a model ('edgellm ls' lists those on this machine). A known model
    that is not here yet is pulled, after one line that says what, how large and from where; on a terminal
    edgellm asks first.

    Without PROMPT, or when it is '-', standard input is the prompt; without PROMPT and on a terminal, a chat
    begins.
    """
    settings = Settings(**options)
    prompt = _prompt(prompt, as_json)
    _check_usage(settings, chat=prompt is None)
    path = _model.locate(model)
    began = time.perf_counter()
    rope = {
        "rope_scaling": rope_scaling or "model",
        "rope_factor": rope_factor or 0.0,
        "rope_base": rope_base or 0.0,
        "rope_original_ctx": rope_original_ctx or 0,
    }
    with _model.load(path, ctx=ctx, threads=threads, raw=options["raw"], **rope) as llm:
        if rope_scaling in NEEDS_FACTOR and not rope_factor and not FILE_FACTOR.intersection(_endings(llm.metadata)):
            raise InvalidArgument(f"--rope-scaling {rope_scaling} changes nothing by itself: add --rope-factor")
        for adapter in adapters:
            llm.set_adapter(*_adapter(adapter))
        load_ms = (time.perf_counter() - began) * 1000
        if prompt is None:
            from edgellm.cli._chat import interact

            interact(llm, model, settings)
        else:
            _answer(llm, model, prompt, settings, as_json, load_ms)


def _check_usage(settings: Settings, *, chat: bool) -> None:
    """
    Refuse options that cannot have an effect together.

    Raises:
        click.UsageError: Two cannot.
    """
    for text in settings.stop:
        if not _model.check_text(text):
            raise click.UsageError("--stop wants some text")
    if settings.raw and settings.system is not None:
        raise click.UsageError("--raw continues the prompt alone: write the text of --system into it")
    if settings.heal and (settings.raw is False or (chat and not settings.raw)):
        raise click.UsageError("--heal is for text that is continued, not for chats: add --raw")


def _endings(metadata: dict[str, Any]) -> Iterator[str]:
    """The keys without the architecture they begin with."""
    return (key.partition(".")[2] for key in metadata)


def _adapter(text: str) -> tuple[str, float]:
    """The file and its scale; a file whose name has a "=" is found, too."""
    path, equals, scale = text.rpartition("=")
    if not equals or os.path.exists(text):  # noqa: PTH110 - the text as it is
        return text, 1.0
    try:
        return path, float(scale)
    except ValueError:
        raise click.UsageError(f"--lora {text}: the strength after = is a number, like 0.5") from None


def _prompt(prompt: str | None, as_json: bool) -> str | None:
    """The prompt from the command line or from standard input; None for a chat."""
    if prompt is None and _model.stdin_is_terminal():
        if as_json:
            raise click.UsageError("--json wants a prompt: give one, or pipe it in")
        return None
    text = _model.read_input() if prompt in (None, "-") else _model.check_text(str(prompt))
    if not text.strip():
        raise click.UsageError("the prompt is empty: give some text, or leave it out on a terminal to chat")
    return text


def new_seed() -> int:
    """A seed nobody used; short enough to type."""
    return int.from_bytes(os.urandom(4), "little")


def _answer(llm: LLM, model: str, prompt: str, settings: Settings, as_json: bool, load_ms: float) -> None:
    """Answer once, on standard output."""
    seed = new_seed() if settings.seed is None else settings.seed
    raw = settings.raw
    if raw is None:
        raw = not _model.has_template(llm)
        if settings.heal and not raw:
            raise InvalidArgument("--heal is for text that is continued, and this model chats: add --raw")
        if raw and settings.system is not None:
            raise InvalidArgument("this model has no chat template, and so no place for --system: add --chat")
        if raw:
            say("this model has no chat template: it continues the text (--chat uses a template all the same)")
    answer = _model.Answer(load_ms=load_ms)
    ended = False
    try:
        for piece in generate(llm, prompt, settings, raw, seed, answer):
            if not as_json:
                click.echo(piece, nl=False)  # flushes
        ended = True
    finally:
        if not as_json and (ended or answer.text) and not answer.text.endswith("\n"):
            click.echo()
    answer.timings["total_ms"] = (time.perf_counter() - STARTED) * 1000
    if as_json:
        print_json(_report(answer, model, seed))
    elif settings.ended_by(answer) == "-n":
        say(f"stopped after {number(answer.n_generated, 'token')}; -n sets how many there may be")
    elif settings.ended_by(answer) == "--ctx":
        n_tokens = number(answer.n_generated, "token")
        say(f"stopped after {n_tokens}: the context of {llm.n_ctx} is full; --ctx sets its size")
    if settings.stats:
        say(f"{answer.summary()}, seed {seed}")


def generate(llm: LLM, prompt: str, settings: Settings, raw: bool, seed: int, answer: _model.Answer) -> Iterator[str]:
    """The pieces of the answer to one prompt."""
    sampling = _model.params(**settings.sampling(seed))
    if raw:
        return _model.complete(llm, prompt, sampling, answer)
    messages = [{"role": "system", "content": settings.system}] if settings.system is not None else []
    messages.append({"role": "user", "content": prompt})
    return _model.chat(llm, messages, sampling, answer)


def _report(answer: _model.Answer, model: str, seed: int) -> dict[str, Any]:
    """The object --json prints."""
    return {
        "model": model,
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "tokens": {
            "prompt": answer.n_prompt,
            "generated": answer.n_generated,
            "total": answer.n_prompt + answer.n_generated,
        },
        "timings": {key: round(value, 3) for key, value in answer.timings.items()},
        "seed": seed,
    }
