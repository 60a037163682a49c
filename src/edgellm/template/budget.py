"""
What one rendering of a template may use: steps, bytes, time and depth.

jinja2's sandbox keeps a template from running code, not from working forever: ``{{ 'x' * 10**9 }}`` is 21 bytes. So
every operation that can make something big states its price here first. Two rules keep the sum honest:

- A price is paid before the work, from sizes alone, and never refunded. What a template has made, in all, is therefore
  at most `Limits.n_bytes`, whatever it keeps alive.
- Containers are weighed when they are made, as trees: ``[a, a]`` weighs twice ``a``. A list that shares its parts a
  billion times is refused at birth, so nothing later (comparing, hashing, printing) can walk into it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple


class LimitError(Exception):
    """A template asked for more than it may use; the text completes 'the chat template ...'."""


class Limits(NamedTuple):
    """What a template may use. The largest of 80 templates in use has 2,500 tokens; compiling 6,000 takes a second."""

    n_source: int = 256 * 1024  # characters of the template
    n_tokens: int = 6_000  # Jinja tokens of the template
    n_nesting: int = 40  # brackets or blocks inside each other
    n_depth: int = 100  # depth of the syntax tree
    n_steps: int = 500_000  # loop rounds, calls and operations
    n_bytes: int = 32 << 20  # memory of all values made, plus 16 times the size of the input
    n_value_depth: int = 64  # lists in lists
    n_calls: int = 40  # macros in macros
    seconds: float = 1.0


class Weight(NamedTuple):
    """A value as a tree."""

    nodes: int
    n_bytes: int
    depth: int
    opaque: bool  # holds something without a text form: a macro, a namespace


_SCALAR = Weight(1, 32, 0, False)
_OPAQUE = Weight(1, 512, 0, True)
_SCALARS = (int, float, bool, type(None))
MAX_NODES = 300_000  # values in a list, counted as a tree
MAX_BITS = 4096  # of an integer: the longest that prints in every Python


class Budget:
    """The account of one rendering."""

    def __init__(self, limits: Limits, inputs: Any = None) -> None:
        self.limits = limits
        self.steps_left = limits.n_steps
        self.bytes_left = 1 << 62  # while the input is weighed
        self.max_weight = 1 << 62
        self.n_calls = 0
        self._deadline = time.perf_counter() + limits.seconds
        self._weights: dict[int, tuple[Any, Weight]] = {}  # by id; the value is kept so that the id stays its own
        n_input = self.weigh(inputs).n_bytes
        self.bytes_left = limits.n_bytes + 16 * n_input
        self.max_weight = 4 * self.bytes_left

    def tick(self, n: int = 1) -> None:
        """Pay for *n* steps and look at the clock."""
        self.steps_left -= n
        if self.steps_left < 0:
            raise LimitError(f"takes more than {self.limits.n_steps:,} steps")
        if time.perf_counter() > self._deadline:
            raise LimitError(f"takes longer than {self.limits.seconds:g} s")

    def need(self, n_bytes: int) -> None:
        """Refuse work that would make *n_bytes*, if that is more than is left. Nothing is paid."""
        if n_bytes > self.bytes_left:
            raise LimitError(f"makes more than {(self.limits.n_bytes >> 20)} MB of text and lists")

    def spend(self, n_bytes: int) -> None:
        """Pay for *n_bytes*."""
        self.need(n_bytes)
        self.bytes_left -= n_bytes

    def number(self, value: Any) -> Any:
        """*value*, unless it is an integer of absurd length."""
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise LimitError("computes a number of more than a thousand digits")
        return value

    def made(self, value: Any) -> Any:
        """Pay for a new *value*: a string by its size, a container by its own size; weigh it. Returns it."""
        self.tick()
        if isinstance(value, (str, list, tuple, dict)):
            self.spend(value.__sizeof__())
            if not isinstance(value, str):
                self.weigh(value)
        elif isinstance(value, int):
            self.number(value)
        return value

    def weigh(self, value: Any) -> Weight:
        """The size of *value* as a tree. Each container is walked once in a rendering: templates cannot change one."""
        if isinstance(value, str):
            return Weight(1, value.__sizeof__(), 0, False)
        if isinstance(value, (list, tuple)):
            return self._weigh_container(value, value)
        if isinstance(value, dict):
            return self._weigh_container(value, value.items())
        if isinstance(value, _SCALARS):
            return _SCALAR
        if isinstance(value, range):
            return Weight(len(value) + 1, 40 * len(value), 1, False)
        return _OPAQUE

    def _weigh_container(self, value: Any, items: Iterable[Any]) -> Weight:
        known = self._weights.get(id(value))
        if known is not None:
            return known[1]
        self.tick(len(value) // 4)
        if len(value) > MAX_NODES:
            raise LimitError(f"makes a list of more than {MAX_NODES:,} values")
        nodes, n_bytes, depth, opaque = 1, value.__sizeof__(), 0, False
        pairs = isinstance(value, dict)
        for item in items:
            for part in item if pairs else (item,):
                part_nodes, part_bytes, part_depth, part_opaque = self.weigh(part)
                nodes += part_nodes
                n_bytes += part_bytes
                depth = max(depth, part_depth)
                opaque = opaque or part_opaque
        if depth >= self.limits.n_value_depth:
            raise LimitError(f"nests lists more than {self.limits.n_value_depth} deep")
        if nodes > MAX_NODES or n_bytes > self.max_weight:
            raise LimitError(f"makes a list that stands for more than {MAX_NODES:,} values")
        weight = Weight(nodes, n_bytes, depth + 1, opaque)
        self._weights[id(value)] = (value, weight)
        return weight

    def need_text(self, value: Any, factor: int = 1) -> None:
        """Refuse to turn *value* into text *factor* times if that cannot be paid, or if it has no text form."""
        if isinstance(value, str):
            self.need(factor * value.__sizeof__())
            return
        weight = self.weigh(value)
        if weight.opaque and type(value).__name__ != "Undefined":
            raise LimitError(f"prints a {type(value).__name__}; it may print text, numbers, lists and dicts")
        self.tick(weight.nodes // 4)
        self.need(factor * 12 * weight.n_bytes)  # repr writes up to ten characters for one: \U0001f600

    def text(self, value: Any) -> str:
        """*value* as text, as Jinja prints it; not paid for yet."""
        if type(value) is str:
            return value
        self.need_text(value)
        return str(value)
