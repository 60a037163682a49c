"""Sampling settings are checked when they are made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from edgellm import InvalidArgument, SamplingParams

WRONG = [
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", "1"),
    ("top_k", -1),
    ("top_k", 1.5),
    ("top_p", 1.01),
    ("top_p", -0.5),
    ("min_p", 2),
    ("typical_p", -1),
    ("repeat_penalty", 0),
    ("repeat_penalty", -1),
    ("presence_penalty", 1000),
    ("frequency_penalty", math.nan),
    ("penalty_last_n", -2),
    ("max_tokens", -1),
    ("max_tokens", 1 << 31),
    ("max_tokens", True),
    ("seed", -1),
    ("seed", 1 << 64),
    ("logprobs", 21),
    ("logprobs", -1),
    ("stop", ""),
    ("stop", ["a", ""]),
    ("stop", [1]),
    ("stop_tokens", ["a"]),
    ("logit_bias", {"a": 1.0}),
    ("logit_bias", {1: math.nan}),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value!r}" for name, value in WRONG])
def test_wrong_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=name) as caught:
        SamplingParams(**{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 5),
        ("top_k", 0),
        ("top_p", 1),
        ("min_p", 0),
        ("max_tokens", 0),
        ("max_tokens", None),
        ("seed", (1 << 64) - 1),
        ("logprobs", 0),
        ("logprobs", 20),
        ("stop", "x"),
        ("stop", ["x", "é"]),
        ("logit_bias", {1: -math.inf}),
    ],
)
def test_limits_are_allowed(name: str, value: Any) -> None:
    assert getattr(SamplingParams(**{name: value}), name) == value


def test_one_stop_string_is_not_its_letters() -> None:
    assert SamplingParams(stop="END").stop_strings == ("END",)
    assert SamplingParams(stop=["a", "b"]).stop_strings == ("a", "b")


def test_overrides_replace_single_settings() -> None:
    params = SamplingParams(top_k=3)
    assert params.with_overrides({}) is params
    assert params.with_overrides({"max_tokens": 5}) == SamplingParams(top_k=3, max_tokens=5)
    with pytest.raises(InvalidArgument, match="did you mean temperature"):
        params.with_overrides({"temprature": 1})
    with pytest.raises(InvalidArgument, match="there are: max_tokens"):
        params.with_overrides({"zzz": 1})
    with pytest.raises(InvalidArgument, match="top_p is 7"):
        params.with_overrides({"top_p": 7})


def test_settings_cannot_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().top_k = 3  # type: ignore[misc]
