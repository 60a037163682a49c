"""How tokens are chosen: settings, checked when they are made."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from edgellm.errors import InvalidArgument

MAX_LOGPROBS = 20
_MAX_BIAS = 1e30

# field: lowest, highest allowed value; the library's own limits
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 1000),
    "top_k": (0, 1 << 30),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repeat_penalty": (0.01, 100),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
    "penalty_last_n": (-1, 1 << 30),
    "max_tokens": (0, (1 << 31) - 1),
    "seed": (0, (1 << 64) - 1),
    "logprobs": (0, MAX_LOGPROBS),
}
_WHOLE = ("top_k", "penalty_last_n", "max_tokens", "seed", "logprobs")
_OPTIONAL = ("max_tokens", "seed", "logprobs")
_SWITCHES = ("ignore_eog", "keep_special", "token_healing")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """
    How a generation chooses its tokens and when it ends.

    Filters run in this order: bias, penalties, top_k, typical_p, top_p, min_p, temperature. Numbers may be NumPy's.

    Attributes:
        max_tokens: Tokens to generate at most; None: until the context is full.
        temperature: Up to 1000; 0 takes the most likely token each time.
        top_k: Keep the k most likely tokens; 0: all.
        top_p: Keep the most likely tokens that make up this probability; 1: all.
        min_p: Keep tokens at least this likely relative to the most likely one; 0: all.
        typical_p: Keep the most typical tokens that make up this probability; 1: all.
        repeat_penalty: Divides the positive scores of tokens seen before, multiplies negative ones; 0.01 to 100;
            1: off.
        presence_penalty: Subtracted from the scores of tokens seen before; -100 to 100; 0: off.
        frequency_penalty: Subtracted once for each time seen; -100 to 100; 0: off.
        penalty_last_n: Tokens the penalties look back on; -1: all, 0: none.
        seed: From 0 to 2^64 - 1. None: the LLM's, or a new one for each call.
        logprobs: None: none; 0: of each chosen token; n up to 20: also of the n most likely.
        stop: A string or strings that end the generation; they are left out of the text. None: none.
        stop_tokens: Tokens that end it. None: none.
        logit_bias: Added to tokens' scores, -1e30 to 1e30; ``-inf`` forbids a token. None: none.
        ignore_eog: Go on after the model's own end of an answer.
        keep_special: Write control tokens into the text.
        token_healing: Take the prompt's last token back and let the first new token be any whose text begins with it,
            so that a prompt may end inside a word; ``text`` still holds only what is new. Not for chats.

    Raises:
        InvalidArgument: A value is outside its range; the text names it.
    """

    max_tokens: int | None = None
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int | None = None
    logprobs: int | None = None
    stop: str | Sequence[str] | None = ()
    stop_tokens: Sequence[int] | None = ()
    logit_bias: Mapping[int, float] | None = field(default_factory=dict)
    ignore_eog: bool = False
    keep_special: bool = False
    token_healing: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            self._check_number(name, low, high)
        for name in _SWITCHES:
            self._check_switch(name)
        self._check_stops()
        self._check_bias()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None and name in _OPTIONAL:
            return
        number = as_number(value)
        if number is None or not low <= number <= high or (name in _WHOLE and not isinstance(number, int)):
            what = "a whole number" if name in _WHOLE else "a number"
            raise InvalidArgument(f"{name} is {shown(value)}; it must be {what} from {low} to {high}")
        self._set(name, number)

    def _check_switch(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # NumPy's
            raise InvalidArgument(f"{name} is {shown(value)}; it must be True or False")
        self._set(name, bool(value))

    def _check_stops(self) -> None:
        for name, what in (("stop", "text or a list of texts"), ("stop_tokens", "a list of token ids")):
            value = getattr(self, name)
            if value is None:
                self._set(name, ())
            elif isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
                raise InvalidArgument(f"{name} is {shown(value)}; it must be {what}")
            elif not isinstance(value, (str, list)):
                self._set(name, tuple(value))
        for text in self.stop_strings:
            if not isinstance(text, str) or not text:
                raise InvalidArgument(f"stop has {shown(text)}; each stop must be text of at least one character")
        for token in self.stop_tokens or ():
            if not isinstance(as_number(token), int):
                raise InvalidArgument(f"stop_tokens has {shown(token)}; each must be a token id")

    def _check_bias(self) -> None:
        if self.logit_bias is None:
            self._set("logit_bias", {})
        elif not isinstance(self.logit_bias, Mapping):
            raise InvalidArgument(f"logit_bias is {shown(self.logit_bias)}; it maps token ids to numbers")
        for token, bias in (self.logit_bias or {}).items():
            number, key = as_number(bias), as_number(token)
            if number is None or not (number == -math.inf or -_MAX_BIAS <= number <= _MAX_BIAS):
                key = None
            if not isinstance(key, int) or not 0 <= key < 1 << 31:
                raise InvalidArgument(
                    f"logit_bias has {shown(token)}: {shown(bias)}; "
                    "it maps token ids to numbers from -1e30 to 1e30, or to -inf"
                )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def with_overrides(self, overrides: Mapping[str, Any]) -> SamplingParams:
        """
        A copy with some settings replaced.

        Raises:
            InvalidArgument: There is no setting of that name; the text suggests the nearest.
        """
        if not overrides:
            return self
        import difflib  # only here, and slow to import

        names = [item.name for item in fields(self)]
        for name in overrides:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
                raise InvalidArgument(f"{name} is not a sampling setting; {hint}")
        return replace(self, **overrides)


def as_number(value: Any) -> int | float | None:
    """*value* as an int or a float; None for what is no number, like True."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    import numbers  # only here: what else there is, like NumPy's, is rare

    if isinstance(value, numbers.Integral):
        return operator.index(value)
    try:
        return float(value) if isinstance(value, numbers.Real) else None
    except OverflowError:  # a Fraction of any size
        return None


def shown(value: Any) -> str:
    """*value* in a message: not longer than it need be."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}..."
