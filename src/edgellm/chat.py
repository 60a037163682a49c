"""
Messages to tokens: the chat template of a model, and the line between its text and that of users.

A template is trusted to write control tokens like ``<|im_end|>``; a message is not. If it were, a user could end their
own turn and speak as the system. So:

1. When no user text spells a control token, the whole rendered text is tokenized with control tokens on. This gives
   exactly the tokens of llama.cpp.
2. Otherwise the spellings in user text are marked (their first character is replaced by one that occurs nowhere else),
   the template is rendered with them, so that it may still trim, split and join, and the stretches that hold a mark are
   tokenized as plain text. What is between two control tokens of the template is one stretch, which is also where the
   tokenizer itself starts afresh; so step 2 changes nothing but the control tokens.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edgellm.errors import InvalidArgument, TemplateError, Unsupported
from edgellm.sampling import shown
from edgellm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edgellm.template.sandbox import Template

_MAX_DEPTH = 60
_ROLE = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_NAMES = ("role", "type")  # fields whose values are names too
_MARKS = range(0xF0000, 0xFFFFE)  # private use: no text has them by accident


class Span(NamedTuple):
    """A stretch of a prompt, and whether control tokens in it count."""

    text: str
    special: bool


# ---- messages --------------------------------------------------------------------------------------------------------


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """*value* as plain data of our own: a template must see nothing with methods that run code."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth >= _MAX_DEPTH:
        raise InvalidArgument(f"{where} is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidArgument(f"{where} has the key {key!r}; keys must be text")
        return {_plain(key, where): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{n}]", depth + 1) for n, item in enumerate(value)]
    raise InvalidArgument(f"{where} is a {type(value).__name__}; it must be text, a number, a list or a dict")


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    A copy of *messages* as plain data.

    Raises:
        InvalidArgument: Something is not a message; the text says which and why.
        Unsupported: A message has a part that is not text.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidArgument("messages must be a list like [{'role': 'user', 'content': 'Hello'}]")
    if not messages:
        raise InvalidArgument("messages is empty; give at least one, like {'role': 'user', 'content': 'Hello'}")
    checked = []
    for n, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InvalidArgument(f"messages[{n}] is a {type(message).__name__}, not a dict with role and content")
        plain = _plain(message, f"messages[{n}]")
        _check_message(plain, n)
        checked.append(plain)
    return checked


def _check_message(message: dict[str, Any], n: int) -> None:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise InvalidArgument(f"messages[{n}] has the role {role!r}; it must be a word like 'user'")
    if content is None and message.get("tool_calls"):
        message["content"] = None
    elif content is None:
        raise InvalidArgument(f"messages[{n}] has no content")
    elif isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                raise Unsupported(f"messages[{n}] has a part of type {kind!r}; only text is supported")
    elif not isinstance(content, str):
        raise InvalidArgument(f"messages[{n}] has content of type {type(content).__name__}; it must be text")


def _flattened(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lists of text parts become one text, for templates that know no parts."""
    return [
        {**message, "content": "\n".join(part["text"] for part in message["content"])}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _parsed_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments of tool calls as dicts: OpenAI sends JSON text, templates mostly expect the object."""
    return [
        {**message, "tool_calls": [_parsed_call(call) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _parsed_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": _plain(arguments, "arguments")}}


def _folded(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """System messages become the beginning of the next user message, for templates without a system role."""
    folded: list[dict[str, Any]] = []
    pending: list[str] = []
    for message in _flattened(messages):
        if message["role"] == "system":
            pending.append(message["content"])
        elif pending and message["role"] == "user":
            folded.append({**message, "content": "\n\n".join([*pending, message["content"]])})
            pending = []
        else:
            folded.append(message)
    if pending:
        folded.append({"role": "user", "content": "\n\n".join(pending)})
    return folded


# ---- control tokens in user text -------------------------------------------------------------------------------------


def _texts(value: Any) -> Iterator[str]:
    """Every text in *value* but the names of fields, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _NAMES:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _names(value: Any) -> Iterator[str]:
    """What `_texts` leaves out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item) if key in _NAMES else _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)


def _mapped(value: Any, change_text: Callable[[str], str], change_name: Callable[[str], str]) -> Any:
    """A copy of *value* with every text changed, and names (which templates look up and compare) in their own way."""
    if isinstance(value, str):
        return change_text(value)
    if isinstance(value, dict):
        return {
            change_name(key): _mapped(item, change_name if key in _NAMES else change_text, change_name)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_mapped(item, change_text, change_name) for item in value]
    return value


class Guard:
    """
    Keeps the control tokens of one vocabulary out of user text.

    Args:
        tokenizer: Where the spellings come from; only asked for them when a text is suspicious.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def is_suspicious(self, texts: Sequence[str]) -> bool:
        """Whether control tokens are spelled in *texts*, or across two neighbours that a template may join."""
        joined = "".join(texts)
        return self._tokenizer.encode(joined, parse_special=True) != self._tokenizer.encode(joined)

    @functools.cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(spelling) for spelling in self._tokenizer.control_tokens}, reverse=True)

    @functools.cached_property
    def _firsts(self) -> str:
        return "".join(sorted({spelling[0] for spelling in self._tokenizer.control_tokens}))

    @functools.cached_property
    def _beginnings(self) -> set[str]:
        return {spelling[:n] for spelling in self._tokenizer.control_tokens for n in range(1, len(spelling))}

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of each control token spelled in *text*, the longest at each start; they may overlap."""
        for match in re.finditer(f"[{re.escape(self._firsts)}]", text) if self._firsts else ():
            start = match.start()
            for length in self._lengths:
                if text[start : start + length] in self._tokenizer.control_tokens:
                    yield start, start + length
                    break

    def marks_for(self, texts: Sequence[str]) -> dict[str, str]:
        """A character that occurs in none of *texts* for each first character of a control token."""
        used = {character for text in texts for character in text if ord(character) in _MARKS}
        free = (chr(code) for code in _MARKS if chr(code) not in used)
        return dict(zip(self._firsts, free, strict=False))

    def mark(self, text: str, marks: Mapping[str, str], *, whole: bool = False) -> str:
        """*text* with the first character of each spelling replaced; unless *whole*, also of one begun at its end."""
        places = {start for start, _ in self.find(text)}
        if not whole:
            longest = max(self._lengths, default=0)
            places.update(len(text) - n for n in range(1, min(longest, len(text) + 1)) if text[-n:] in self._beginnings)
        characters = list(text)
        for place in places:
            characters[place] = marks[characters[place]]
        return "".join(characters)

    def spans(self, marked: str, marks: Mapping[str, str]) -> list[Span]:
        """Cut a rendered text with marks into stretches, and put the marked characters back."""
        back = {ord(mark): first for first, mark in marks.items()}
        spans: list[Span] = []
        at = 0
        for start, end in [*self.find(marked), (len(marked), len(marked))]:
            if start < at:
                continue  # inside the one before
            stretch = marked[at:start]
            plain = stretch.translate(back)
            for span in (Span(plain, special=plain == stretch), Span(marked[start:end], special=True)):
                if span.text and spans and spans[-1].special and span.special:
                    spans[-1] = Span(spans[-1].text + span.text, special=True)
                elif span.text:
                    spans.append(span)
            at = end
        return spans


# ---- the templates of a model ----------------------------------------------------------------------------------------


class ChatFormat:
    """
    How one model wants its messages: the templates of its file, or one of ours.

    Args:
        tokenizer: Of the model.
        metadata: Of the model.
    """

    def __init__(self, tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._guard = Guard(tokenizer)
        self._compiled: dict[str, Template] = {}
        self._changing = threading.RLock()  # again by a signal handler
        prefix = "tokenizer.chat_template"
        self.templates: dict[str, str] = {
            key[len(prefix) + 1 :] or "default": text
            for key, text in metadata.items()
            if (key == prefix or key.startswith(prefix + ".")) and isinstance(text, str) and text.strip()
        }

    def source(self, name: str | None = None, *, tools: bool = False) -> str:
        """
        The text of a template.

        Args:
            name: A template of the file, one of ours, or Jinja text; None: the file's own, else one of ours that fits.
            tools: Prefer the file's template for tools.

        Raises:
            InvalidArgument: There is no template of that name.
        """
        from edgellm.template import fallback

        if name is None:
            if tools and "tool_use" in self.templates:
                return self.templates["tool_use"]
            if "default" in self.templates:
                return self.templates["default"]
            return fallback.TEMPLATES[fallback.choose(self._is_control)]
        if not isinstance(name, str):
            raise InvalidArgument(f"template is {shown(name)}; it must be the name of a template or Jinja text")
        if name in self.templates:
            return self.templates[name]
        if name in fallback.TEMPLATES:
            return fallback.TEMPLATES[name]
        if "{{" in name or "{%" in name:
            return name
        names = ", ".join([*self.templates, *fallback.TEMPLATES])
        raise InvalidArgument(f"there is no chat template {name!r}; there are: {names}; or give Jinja text")

    def _is_control(self, text: str) -> bool:
        ids = self._tokenizer.encode(text, parse_special=True)
        return len(ids) == 1 and self._tokenizer.is_control(ids[0])

    def _template(self, source: str) -> Template:
        from edgellm.template.sandbox import RenderError, Template

        template = self._compiled.get(source)
        if template is None:
            try:
                template = Template(source)
            except RenderError as error:
                raise TemplateError(f"the chat template {error}") from None
            with self._changing:
                if len(self._compiled) >= 8:
                    self._compiled.pop(next(iter(self._compiled)), None)
                self._compiled[source] = template
        return template

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """
        The text that stands for *messages*.

        Args:
            messages: ``{"role", "content"}`` each, as in OpenAI's API.
            add_generation_prompt: End with the beginning of the assistant's answer.
            template: See `source`.
            tools: Descriptions of functions, as in OpenAI's API.
            **variables: Given to the template, like ``enable_thinking=False``.

        Raises:
            InvalidArgument: Something is not a message, or the template never reads the tools.
            TemplateError: The template is wrong or refuses these messages.
        """
        return self._render(*self._inputs(messages, tools, variables), add_generation_prompt, template)

    def spans(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> list[Span]:
        """The same as stretches of text, with user text kept apart where it spells control tokens."""
        plain, extra = self._inputs(messages, tools, variables)
        inputs = [plain, extra]
        texts, names = [*_texts(inputs)], [*_names(inputs)]
        if not self._guard.is_suspicious(texts) and not self._guard.is_suspicious(names):
            return [Span(self._render(plain, extra, add_generation_prompt, template), special=True)]
        guard, source = self._guard, self.source(template, tools=bool(tools))
        marks = guard.marks_for([*texts, *names, source])
        plain, extra = _mapped(
            inputs, lambda text: guard.mark(text, marks), lambda name: guard.mark(name, marks, whole=True)
        )
        return guard.spans(self._render(plain, extra, add_generation_prompt, template), marks)

    def encode(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """The tokens of *messages*; arguments as for `render`."""
        tokenizer = self._tokenizer
        ids: list[int] = []
        for span in self.spans(messages, **options):
            ids += tokenizer.encode(span.text, parse_special=span.special)
        if tokenizer.adds_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
            ids.insert(0, tokenizer.bos)
        return ids

    def _inputs(
        self, messages: Sequence[Mapping[str, Any]], tools: Any, variables: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        if tools is not None and not (isinstance(tools, (list, tuple)) and all(isinstance(t, Mapping) for t in tools)):
            raise InvalidArgument(f"tools is {shown(tools)}; it must be a list of dicts, as in OpenAI's API")
        extra = {"tools": tools or None, "documents": None, **variables}
        return check_messages(messages), {name: _plain(value, name) for name, value in extra.items()}

    def _render(
        self, messages: list[dict[str, Any]], extra: dict[str, Any], add_generation_prompt: bool, name: str | None
    ) -> str:
        """Try the messages as they are, then in the shapes that templates without some feature need."""
        source = self.source(name, tools=bool(extra["tools"]))
        if extra["tools"] and not re.search(r"\btools\b", source):
            raise InvalidArgument(
                "the chat template never reads tools, so the model would not see them: leave them out, "
                "or give a template that does"
            )
        template = self._template(source)
        first = messages if _knows_parts(source) else _flattened(messages)
        attempts = [_parsed_calls(first), first, _parsed_calls(_flattened(messages))]
        if any(message["role"] == "system" for message in messages):
            attempts.append(_folded(_parsed_calls(messages)))
        from edgellm.template.sandbox import OverLimitError, RenderError

        variables = {**self._special_texts(), **extra, "add_generation_prompt": add_generation_prompt}
        failure: RenderError | None = None
        without_system: str | None = None
        for n, attempt in enumerate(attempts):
            if attempt in attempts[:n]:
                continue
            try:
                text = template.render({**variables, "messages": attempt})
            except OverLimitError as error:
                raise TemplateError(f"the chat template {error}") from None
            except RenderError as error:
                failure = failure or error
                continue
            if attempt is attempts[-1] or _has_system(text, messages):
                return text
            without_system = without_system or text
        if without_system is not None:
            return without_system
        raise TemplateError(f"the chat template {failure}")

    def _special_texts(self) -> dict[str, str]:
        def text(token: int | None) -> str:
            return "" if token is None else self._tokenizer.token(token).decode("utf-8", "replace")

        names = ("bos", "eos", "unk", "pad")
        return {f"{name}_token": text(getattr(self._tokenizer, name)) for name in names}


def _knows_parts(source: str) -> bool:
    """Whether a template looks at the type of a content or of its parts."""
    return bool(re.search(r"is (not )?(string|iterable|mapping|sequence)|['\"]type['\"]|\.type\b", source))


def _has_system(text: str, messages: list[dict[str, Any]]) -> bool:
    """Whether the rendered text holds the system messages: some templates leave them out without a word."""
    contents = [message["content"] for message in _flattened(messages) if message["role"] == "system"]
    return all(line.strip() in text for content in contents for line in (content or "").splitlines()[:1])
