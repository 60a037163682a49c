"""How tokens are chosen: settings, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from edgellm.errors import InvalidArgument

MAX_LOGPROBS = 20

# field: lowest, highest allowed value
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, math.inf),
    "top_k": (0, 1 << 30),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repeat_penalty": (0, math.inf),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
    "penalty_last_n": (-1, 1 << 30),
    "max_tokens": (0, (1 << 31) - 1),
    "seed": (0, (1 << 64) - 1),
    "logprobs": (0, MAX_LOGPROBS),
}
_WHOLE = ("top_k", "penalty_last_n", "max_tokens", "seed", "logprobs")
_OPTIONAL = ("max_tokens", "seed", "logprobs")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """
    How a generation chooses its tokens and when it ends.

    Filters run in this order: bias, penalties, top_k, typical_p, top_p, min_p, temperature.

    Attributes:
        max_tokens: Tokens to generate at most; None: until the context is full.
        temperature: 0 takes the most likely token each time.
        top_k: Keep the k most likely tokens; 0: all.
        top_p: Keep the most likely tokens that make up this probability; 1: all.
        min_p: Keep tokens at least this likely relative to the most likely one; 0: all.
        typical_p: Keep the most typical tokens that make up this probability; 1: all.
        repeat_penalty: Divides the positive scores of tokens seen before, multiplies negative ones; 1: off.
        presence_penalty: Subtracted from the scores of tokens seen before; 0: off.
        frequency_penalty: Subtracted once for each time seen; 0: off.
        penalty_last_n: Tokens the penalties look back on; -1: all, 0: none.
        seed: From 0 to 2^64 - 1. None: the LLM's, or a new one for each call.
        logprobs: None: none; 0: of each chosen token; n up to 20: also of the n most likely.
        stop: A string or strings that end the generation; they are left out of the text.
        stop_tokens: Tokens that end it.
        logit_bias: Added to tokens' scores; ``-inf`` forbids a token.
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
    stop: str | Sequence[str] = ()
    stop_tokens: Sequence[int] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    ignore_eog: bool = False
    keep_special: bool = False
    token_healing: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            self._check_number(name, low, high)
        if self.repeat_penalty == 0:
            raise InvalidArgument("repeat_penalty is 0; it must be greater than 0 (1: off)")
        for text in self.stop_strings:
            if not isinstance(text, str) or not text:
                raise InvalidArgument(f"stop has {text!r}; each stop must be text of at least one character")
        for token in self.stop_tokens:
            if not isinstance(token, int):
                raise InvalidArgument(f"stop_tokens has {token!r}; each must be a token id")
        for token, bias in self.logit_bias.items():
            if not isinstance(token, int) or not isinstance(bias, (int, float)) or math.isnan(bias):
                raise InvalidArgument(f"logit_bias has {token!r}: {bias!r}; it maps token ids to numbers")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None and name in _OPTIONAL:
            return
        kind = int if name in _WHOLE else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high or math.isinf(value):
            what = "a whole number" if name in _WHOLE else "a number"
            limit = f"from {low:.10g} to {high:.10g}" if high < math.inf else f"of at least {low:.10g}"
            raise InvalidArgument(f"{name} is {value!r}; it must be {what} {limit}")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

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
