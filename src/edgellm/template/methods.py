"""
The methods a template may call on strings, lists and dicts, each with a bound on what it makes.

A list of what is allowed rather than of what is not: a method that a later Python adds stays out until someone has
thought about it. Numbers have no methods here. Methods that change a list or a dict are left out, as in jinja2's
immutable sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from string import Formatter
from typing import Any

from edgellm.template.budget import Budget, LimitError

MAX_WIDTH = 10_000  # of padding
MAX_SEARCH = 1 << 27  # characters compared by the searches that CPython does the plain way
_PART = 80  # bytes of a short string and its place in a list
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


class Method:
    """A method bound to a value, to be called by a template."""

    __slots__ = ("_budget", "_function", "_value", "name")

    def __init__(self, budget: Budget, name: str, function: Callable[..., Any], value: Any) -> None:
        self._budget, self.name, self._function, self._value = budget, name, function, value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, at its price."""
        self._budget.tick()
        return self._budget.made(self._function(self._budget, self._value, *args, **kwargs))


def width(value: Any) -> int:
    """A padding width within the limit."""
    if not isinstance(value, int) or value > MAX_WIDTH:
        raise LimitError(f"pads to {value!r} characters; the limit is {MAX_WIDTH}")
    return value


def search(text: str, part: Any) -> None:
    """Refuse a search that CPython does in ``len(text) * len(part)`` steps, if those are too many."""
    if isinstance(part, str) and len(text) * len(part) > MAX_SEARCH:
        raise LimitError(f"searches {len(text):,} characters for one of {len(part):,}")


def need_parts(budget: Budget, text: str, n_parts: int) -> None:
    """Room for *text* cut into *n_parts* strings."""
    budget.need(2 * text.__sizeof__() + _PART * n_parts)


def need_replace(budget: Budget, text: str, old: Any, new: Any, count: Any = -1) -> None:
    """Room for ``text.replace(old, new, count)``."""
    if isinstance(old, str) and isinstance(new, str) and isinstance(count, int):
        n = text.count(old) if count < 0 else min(count, text.count(old))
        budget.need(4 * (len(text) + n * len(new)))


def need_lines(budget: Budget, text: str, n_extra: int = 0) -> None:
    """Room for *text* cut into lines, each made *n_extra* characters longer."""
    n_lines = 1 + sum(text.count(end) for end in _LINE_ENDS)
    budget.need(4 * text.__sizeof__() + n_lines * (_PART + 4 * n_extra))


# ---- str -------------------------------------------------------------------------------------------------------------


def _plain(name: str) -> Callable[..., Any]:
    """A method whose result is at most a few times as long as the string (upper-casing can triple it)."""
    method = getattr(str, name)

    def call(budget: Budget, text: str, *args: Any) -> Any:
        budget.need(6 * text.__sizeof__())
        return method(text, *args)

    return call


def _searching(name: str) -> Callable[..., Any]:
    """A method that compares every place of the string with its argument."""
    method = getattr(str, name)

    def call(budget: Budget, text: str, *args: Any) -> Any:
        if args:
            search(text, args[0])
        budget.need(3 * text.__sizeof__())
        return method(text, *args)

    return call


def _padding(name: str) -> Callable[..., Any]:
    method = getattr(str, name)

    def call(budget: Budget, text: str, size: int, *args: Any) -> Any:
        budget.need(4 * (len(text) + width(size)))
        return method(text, size, *args)

    return call


def _split(budget: Budget, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    n = len(text) // 2 if sep is None else text.count(sep)
    need_parts(budget, text, 1 + (n if maxsplit < 0 else min(n, maxsplit)))
    return _spend_parts(budget, text.split(sep, maxsplit))


def _rsplit(budget: Budget, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    search(text, sep)
    n = len(text) // 2 if sep is None else text.count(sep)
    need_parts(budget, text, 1 + (n if maxsplit < 0 else min(n, maxsplit)))
    return _spend_parts(budget, text.rsplit(sep, maxsplit))


def _splitlines(budget: Budget, text: str, keepends: bool = False) -> list[str]:
    need_lines(budget, text)
    return _spend_parts(budget, text.splitlines(keepends))


def _spend_parts(budget: Budget, parts: list[str]) -> list[str]:
    budget.spend(sum(part.__sizeof__() for part in parts))
    return parts


def _replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    need_replace(budget, text, old, new, count)
    return text.replace(old, new, count)


def join(budget: Budget, separator: str, items: Any) -> str:
    """``separator.join(items)``, items being text already."""
    weight = budget.weigh(items)
    n_items = len(items) if isinstance(items, str) else weight.nodes
    budget.tick(n_items // 4)
    budget.need(4 * weight.n_bytes + n_items * (4 * len(separator) + 16))
    return separator.join(items)


_LONG_NUMBER = re.compile(r"[0-9]{4}")


class _Formatter(Formatter):
    """str.format with priced fields; attributes and items are looked up by the sandbox's own rules."""

    def __init__(self, budget: Budget, getattr_: Callable[[Any, str], Any], getitem: Callable[[Any, Any], Any]) -> None:
        self._budget, self._getattr, self._getitem = budget, getattr_, getitem

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        first, *rest = re.split(r"(?=[.\[])", field_name)
        value = self.get_value(int(first) if first.isdigit() else first, args, kwargs)
        for part in rest:
            if part.startswith("."):
                value = self._getattr(value, part[1:])
            else:
                key = part[1:].rstrip("]")
                value = self._getitem(value, int(key) if key.isdigit() else key)
        return value, first

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        self._budget.need_text(value, 12)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        self._budget.tick()
        if _LONG_NUMBER.search(format_spec):
            raise LimitError(f"formats with {format_spec[:20]!r}; widths may have three digits")
        if not isinstance(value, (str, int, float)):
            return self._budget.made(self._budget.text(value))  # type: ignore[no-any-return]
        self._budget.need_text(value, 4)
        return self._budget.made(format(value, format_spec))  # type: ignore[no-any-return]


def formatter(
    budget: Budget, text: str, getattr_: Callable[[Any, str], Any], getitem: Callable[[Any, Any], Any]
) -> Callable[..., str]:
    """``text.format`` as a template may call it."""

    def call(_: Budget, __: str, *args: Any, **kwargs: Any) -> str:
        return _Formatter(budget, getattr_, getitem).vformat(text, args, kwargs)

    return call


_PERCENT_FIELD = re.compile(r"[#0\- +]*(\*|[0-9]*)(?:\.(\*|[0-9]*))?[hlL]?.", re.DOTALL)


def _percent_fields(text: str) -> Iterator[tuple[str, str]]:
    """Width and precision of each field of a ``%`` format, by CPython's own rules (unicode_format_arg_parse)."""
    at = text.find("%")
    while at >= 0:
        at += 1
        if text.startswith("(", at):
            depth = 0
            while at < len(text):
                depth += (text[at] == "(") - (text[at] == ")")
                at += 1
                if depth == 0:
                    break
        field = _PERCENT_FIELD.match(text, at)
        if field is None:
            return
        yield field[1], field[2] or ""
        at = text.find("%", field.end())


def percent(budget: Budget, text: str, values: Any) -> str:
    """``text % values``."""
    n_fields = 0
    for numbers in _percent_fields(text):
        n_fields += 1
        if any(number == "*" or len(number) > 3 for number in numbers):
            raise LimitError("formats with a width of more than three digits")
    budget.tick(n_fields)
    weight = budget.weigh(values)
    budget.need(4 * len(text) + n_fields * (12 * weight.n_bytes + 4 * 2048))
    result: str = text % values
    return result


_PLAIN = """
    capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace
    istitle isupper lower partition removeprefix removesuffix startswith swapcase title upper
"""
_STR: dict[str, Callable[..., Any]] = {
    **{name: _plain(name) for name in _PLAIN.split()},
    **{name: _searching(name) for name in ("lstrip", "rfind", "rindex", "rpartition", "rstrip", "strip")},
    **{name: _padding(name) for name in ("center", "ljust", "rjust", "zfill")},
    "join": join,
    "replace": _replace,
    "rsplit": _rsplit,
    "split": _split,
    "splitlines": _splitlines,
}

# ---- list, tuple, dict -----------------------------------------------------------------------------------------------

_LIST: dict[str, Callable[..., Any]] = {
    "count": lambda budget, items, value: items.count(value),
    "index": lambda budget, items, *args: items.index(*args),
}


def _dict_items(budget: Budget, mapping: dict[Any, Any]) -> list[tuple[Any, Any]]:
    budget.spend(72 * len(mapping))
    return list(mapping.items())


_DICT: dict[str, Callable[..., Any]] = {
    "copy": lambda budget, mapping: dict(mapping),
    "get": lambda budget, mapping, key, default=None: mapping.get(key, default),
    "items": _dict_items,  # lists instead of views: they can be weighed
    "keys": lambda budget, mapping: list(mapping),
    "values": lambda budget, mapping: list(mapping.values()),
}


def methods_of(value: Any) -> dict[str, Callable[..., Any]]:
    """The methods a template may call on *value*."""
    if isinstance(value, str):
        return _STR
    if isinstance(value, dict):
        return _DICT
    return _LIST if isinstance(value, (list, tuple)) else {}
