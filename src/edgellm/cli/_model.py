"""The seam between the commands and the library: find a model, load it, ask it, read the prompt.

Everything heavy is imported inside the functions; tests put a small model in place of `load`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgellm.cli._text import number
from edgellm.errors import EdgellmError, ModelNotFound

if TYPE_CHECKING:
    from edgellm import LLM, SamplingParams, Tokenizer
    from edgellm._native import Model

TEMPLATE = "tokenizer.chat_template"
MAX_ARRAY = 16  # items of an array in `LLM.metadata`
MAX_INPUT = 64 << 20  # bytes of a prompt; no context holds more


class Answer:
    """
    What a generation gave.

    Attributes:
        text: All of it.
        n_prompt: Tokens of the prompt.
        n_generated: Tokens of the answer.
        finish_reason: ``stop``, ``length`` or ``cancelled``.
        timings: Milliseconds (``*_ms``) and tokens per second (``*_per_s``).
    """

    def __init__(self, **timings: float) -> None:
        self.text = ""
        self.n_prompt = 0
        self.n_generated = 0
        self.finish_reason = "cancelled"
        self.timings = timings

    def summary(self) -> str:
        """The figures in one line."""
        t = self.timings
        words = []
        if "load_ms" in t:
            words.append(f"load {t['load_ms']:.0f} ms")
        if "first_token_ms" in t:
            words.append(f"first token {t['first_token_ms']:.0f} ms")
        if self.n_prompt:  # known at the end of an answer
            words.append(f"prompt {self.n_prompt} tokens" + _rate(t.get("prefill_per_s")))
            words.append(f"answer {self.n_generated} tokens" + _rate(t.get("decode_per_s")))
        else:
            words.append(f"answer cancelled after about {number(self.n_generated, 'token')}")
        if "total_ms" in t:
            words.append(f"{t['total_ms'] / 1000:.2f} s in all")
        return ", ".join(words)


def _rate(per_second: float | None) -> str:
    return f" at {per_second:.0f}/s" if per_second else ""


def resolve(model: str) -> Path:
    """
    The file of *model*, a path or a name in the store. Never uses the network.

    Raises:
        ModelNotFound: There is none.
    """
    from edgellm.store.shelf import resolve as find

    return find(model)


def locate(model: str) -> Path:
    """
    The file of *model*; one that is not here but known is pulled, after a line that says so.

    Raises:
        ModelNotFound: Nobody knows it.
        StoreError: The pull failed.
    """
    try:
        return resolve(model)
    except ModelNotFound:
        from edgellm.cli._pull import fetch_missing

        path = fetch_missing(model)
        if path is None:
            raise
        return path


def load(path: Path, *, ctx: int = 0, threads: int | None = None, raw: bool | None = None, **settings: Any) -> LLM:
    """
    Load the model file for text generation: one sequence at a time.

    The template engine takes 20 ms to import; if it will be needed, that happens beside the loading, which is C.

    Args:
        path: The file.
        ctx: Tokens of context; 0: the library's choice.
        threads: To compute with; None: the library's choice.
        raw: Whether no chat template will be used; None: as the file has one.
        **settings: Given to the LLM as they are.

    Raises:
        Unsupported: The model does not write.
    """
    from edgellm import LLM
    from edgellm.embedding import needs_generation

    metadata: dict[str, Any] = {}
    if not raw:
        with contextlib.suppress(EdgellmError):  # loading says what is wrong
            metadata = inspect(path, MAX_ARRAY)["metadata"]
    if raw is False or TEMPLATE in metadata:
        threading.Thread(target=_import_templates).start()
    llm = LLM(path, n_ctx=ctx, threads=threads or 0, n_seqs=1, **settings)
    needs_generation(llm._model)  # before a word about templates, or a chat begins
    if metadata:
        llm.metadata = metadata  # so that it does not read the header again
    return llm


def load_for_embedding(path: Path, *, threads: int | None = None) -> LLM:
    """Load the model file for embeddings, with as little cache for text as can be."""
    from edgellm import LLM

    return LLM(path, n_ctx=0, threads=threads or 0, n_seqs=1)


def _import_templates() -> None:
    with contextlib.suppress(Exception):  # whoever needs it meets the same failure
        import edgellm.template.sandbox  # noqa: F401


def tokenizer(path: Path) -> Tokenizer:
    """Open the vocabulary of a file."""
    from edgellm import Tokenizer

    return Tokenizer(path)


def inspect(path: Path, max_array: int) -> dict[str, Any]:
    """The header of a file as plain data; arrays are cut after *max_array* items."""
    import edgellm

    found: dict[str, Any] = edgellm.inspect(path, max_array)
    return found


def has_template(llm: LLM) -> bool:
    """Whether the file brings its own chat template."""
    return TEMPLATE in llm.metadata


def params(**values: Any) -> SamplingParams:
    """Sampling settings; those that are None keep the library's defaults."""
    from edgellm import SamplingParams

    return SamplingParams(**{key: value for key, value in values.items() if value is not None})


def complete(llm: LLM, prompt: str, sampling: SamplingParams, answer: Answer) -> Iterator[str]:
    """Continue *prompt* as it is; yields text as it comes and fills *answer*, also when stopped early."""
    started = time.perf_counter()
    for chunk in llm.stream(prompt, sampling):
        if chunk.text:
            _add(answer, chunk.text, started)
            yield chunk.text
        if chunk.completion is not None:
            done = chunk.completion
            answer.n_prompt, answer.n_generated = done.n_prompt, done.n_generated
            answer.finish_reason = chunk.finish_reason or done.finish_reason
            _take_timings(answer, done.timings)


def chat(llm: LLM, messages: Sequence[dict[str, str]], sampling: SamplingParams, answer: Answer) -> Iterator[str]:
    """Answer the last of *messages*; otherwise like `complete`."""
    started = time.perf_counter()
    stream: Iterator[dict[str, Any]] = llm.chat(messages, sampling, stream=True)
    for chunk in stream:
        for choice in chunk["choices"]:
            text = choice["delta"].get("content")
            if text:
                _add(answer, text, started)
                yield text
            answer.finish_reason = choice["finish_reason"] or answer.finish_reason
        usage = chunk.get("usage")
        if usage:
            answer.n_prompt, answer.n_generated = usage["prompt_tokens"], usage["completion_tokens"]
        if chunk.get("timings"):
            _take_timings(answer, chunk["timings"])


def _add(answer: Answer, text: str, started: float) -> None:
    if not answer.text:
        answer.timings["first_token_ms"] = (time.perf_counter() - started) * 1000
    answer.text += text
    answer.n_generated += 1  # pieces are tokens, nearly; the end of the stream has the number


def _take_timings(answer: Answer, timings: Any) -> None:
    """Copy the library's figures, which come as an object or as a dict."""
    for key in ("prefill_ms", "decode_ms", "prefill_per_s", "decode_per_s", "first_token_ms"):
        value = timings.get(key) if isinstance(timings, dict) else getattr(timings, key, None)
        if value is not None:
            answer.timings[key] = float(value)


def read_input() -> str:
    """
    All of standard input as text, without the last line end.

    Raises:
        click.UsageError: It is not UTF-8, or larger than any context.
    """
    data = sys.stdin.buffer.read(MAX_INPUT + 1) if sys.stdin is not None else b""
    if len(data) > MAX_INPUT:
        raise click.UsageError(f"standard input has more than {MAX_INPUT >> 20} MiB: no context holds that")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"standard input is not UTF-8 text: byte {error.start} is {data[error.start]:#x}"
        ) from None
    return text.removesuffix("\n").removesuffix("\r")


def check_text(text: str) -> str:
    """
    *text* as it came from the command line.

    Raises:
        click.UsageError: Its bytes were not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise click.UsageError(f"the text is not UTF-8 from character {error.start} on") from None
    return text


def stdin_is_terminal() -> bool:
    """Whether a person may type; without any standard input the answer is no."""
    return sys.stdin is not None and sys.stdin.isatty()


def open_weights(path: Path) -> Model:
    """Map a model for `bench`, which makes its own engines and needs none of the layers above them."""
    from edgellm import _native

    return _native.Model(path)
