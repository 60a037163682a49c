"""
The filters a template may use.

They are jinja2's own, each behind a check of what it would make, and `tojson` as chat templates expect it: plain JSON,
not escaped for HTML.

Filters that nobody needs in a chat template and that are hard to bound (wordwrap, pprint, urlize, xmlattr, striptags)
or that reach around the sandbox (attr) are not there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from jinja2.filters import FILTERS
from markupsafe import Markup

from edgellm.template import methods
from edgellm.template.budget import MAX_BITS, LimitError

if TYPE_CHECKING:
    from edgellm.template.sandbox import Sandbox

Check = Callable[..., None]  # (sandbox, value, *args, **kwargs): raises LimitError before the work is done


def _any(sandbox: Sandbox, value: Any, *args: Any, **kwargs: Any) -> None:
    """Filters that make nothing larger than their input."""


def _text(sandbox: Sandbox, value: Any, *args: Any, **kwargs: Any) -> None:
    """Filters from text to text of at most six times the size (& becomes &amp;)."""
    sandbox.budget.need_text(value, 6)
    for arg in args:
        sandbox.budget.need_text(arg)


def _words(sandbox: Sandbox, value: Any, *args: Any, **kwargs: Any) -> None:
    """Filters that cut a text into words on the way."""
    sandbox.budget.need_text(value, 2)
    if isinstance(value, str):
        methods.need_parts(sandbox.budget, value, len(value))
        sandbox.budget.tick(len(value) // 8)


def _items(sandbox: Sandbox, value: Any, *args: Any, **kwargs: Any) -> None:
    """Filters that go through a list, or the characters of a text."""
    weight = sandbox.budget.weigh(value)
    n_items = len(value) if isinstance(value, str) else weight.nodes
    sandbox.budget.tick(n_items // 8)
    sandbox.budget.need(80 * len(value) if isinstance(value, str) else 2 * weight.n_bytes)


def _batch(sandbox: Sandbox, value: Any, n: Any, *args: Any, **kwargs: Any) -> None:
    _items(sandbox, value)
    methods.width(n)


def _center(sandbox: Sandbox, value: Any, width: int = 80) -> None:
    _text(sandbox, value)
    methods.width(width)


def _indent(sandbox: Sandbox, value: Any, width: int | str = 4, *args: Any, **kwargs: Any) -> None:
    if isinstance(value, str):
        methods.need_lines(sandbox.budget, value, methods.width(len(width) if isinstance(width, str) else width))


def _int(sandbox: Sandbox, value: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(value, str) and len(value) > MAX_BITS // 4:
        raise LimitError("reads a number of more than a thousand digits")


def _join(sandbox: Sandbox, value: Any, d: Any = "", attribute: Any = None) -> None:
    _items(sandbox, value)
    weight = sandbox.budget.weigh(value)
    n_items = len(value) if isinstance(value, str) else weight.nodes
    sandbox.budget.need(12 * weight.n_bytes + n_items * sandbox.budget.weigh(d).n_bytes)


def _replace(sandbox: Sandbox, value: Any, old: Any, new: Any, count: Any = None) -> None:
    text = sandbox.budget.text(value)
    methods.need_replace(sandbox.budget, text, sandbox.budget.text(old), sandbox.budget.text(new))


def _round(sandbox: Sandbox, value: Any, precision: int = 0, method: str = "common") -> None:
    if not isinstance(precision, int) or abs(precision) > 30:
        raise LimitError(f"rounds to {precision!r} digits; the limit is 30")


def _sum(sandbox: Sandbox, value: Any, attribute: Any = None, start: Any = 0) -> None:
    _items(sandbox, value)
    if not isinstance(start, (int, float)):
        raise LimitError("sums up something else than numbers")


def _trim(sandbox: Sandbox, value: Any, chars: Any = None) -> None:
    _text(sandbox, value)
    if isinstance(value, str):
        methods.search(value, chars)


_CHECKS: dict[str, Check] = {
    **dict.fromkeys(("abs", "count", "d", "default", "first", "float", "last", "length", "safe"), _any),
    **dict.fromkeys(("capitalize", "e", "escape", "forceescape", "lower", "string"), _text),
    **dict.fromkeys(("truncate", "upper", "urlencode"), _text),
    **dict.fromkeys(("title", "wordcount"), _words),
    **dict.fromkeys(("dictsort", "groupby", "items", "list", "map", "max", "min", "reject", "rejectattr"), _items),
    **dict.fromkeys(("reverse", "select", "selectattr", "sort", "unique"), _items),
    "batch": _batch,
    "center": _center,
    "indent": _indent,
    "int": _int,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "slice": _batch,
    "sum": _sum,
    "trim": _trim,
}


def _guard(sandbox: Sandbox, function: Callable[..., Any], check: Check) -> Callable[..., Any]:
    """*function* with its check before and its price after; what it would compute lazily is computed now."""
    n_context = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        sandbox.budget.tick()
        check(sandbox, *args[n_context:], **kwargs)
        result = function(*args, **kwargs)
        if isinstance(result, Iterator):
            result = _listed(sandbox, result)
        elif isinstance(result, Markup):
            result = str(result)  # templates here make text, not HTML
        return sandbox.budget.made(result)

    return guarded


def _listed(sandbox: Sandbox, items: Iterator[Any]) -> list[Any]:
    result = []
    for item in items:
        sandbox.budget.tick()
        result.append(sandbox.budget.made(item) if isinstance(item, str) else item)
    return result


def _tojson(
    sandbox: Sandbox,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON, with the arguments that Hugging Face's transformers gives its filter."""
    n_indent = indent if isinstance(indent, int) else len(indent or "")
    if n_indent > 16 or any(len(separator) > 16 for separator in separators or ()):
        raise LimitError("writes JSON with more than 16 characters of indent or separator")
    sandbox.budget.need_text(value)
    weight = sandbox.budget.weigh(value)
    sandbox.budget.tick(weight.nodes)
    sandbox.budget.need(weight.nodes * (weight.depth * max(n_indent, 0) + 40))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _format(sandbox: Sandbox, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise LimitError("calls format with both kinds of arguments")
    return methods.percent(sandbox.budget, sandbox.budget.text(value), kwargs or args)


def filters_for(sandbox: Sandbox) -> dict[str, Callable[..., Any]]:
    """The filters of one sandbox."""
    filters = {name: _guard(sandbox, FILTERS[name], check) for name, check in _CHECKS.items()}
    filters["tojson"] = _guard(sandbox, functools.partial(_tojson, sandbox), _any)
    filters["format"] = _guard(sandbox, functools.partial(_format, sandbox), _any)
    return filters
