"""Sampling settings are checked when they are made."""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edgellm import InvalidArgument, SamplingParams
from edgellm.sampling import shown

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
    ("temperature", 5000),
    ("temperature", 10**400),
    ("max_tokens", 10**5000),
    ("repeat_penalty", 0),
    ("repeat_penalty", 1000),
    ("repeat_penalty", 1e300),
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
    ("stop", 5),
    ("stop", b"x"),
    ("stop_tokens", 5),
    ("stop_tokens", ["a"]),
    ("logit_bias", {"a": 1.0}),
    ("logit_bias", {1: math.nan}),
    ("logit_bias", {1: 10**400}),
    ("logit_bias", {1 << 40: 1.0}),
    ("logit_bias", [1]),
    ("ignore_eog", "no"),
    ("keep_special", None),
    ("token_healing", 2),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={shown(value)}" for name, value in WRONG])
def test_wrong_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=name) as caught:
        SamplingParams(**{name: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 1000),
        ("repeat_penalty", 0.01),
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


def test_limits_are_named() -> None:
    for name, value, text in [
        ("temperature", -1, "temperature is -1; it must be a number from 0 to 1000"),
        ("repeat_penalty", 1e300, "repeat_penalty is 1e+300; it must be a number from 0.01 to 100"),
        ("seed", -1, "seed is -1; it must be a whole number from 0 to 18446744073709551615"),
    ]:
        with pytest.raises(InvalidArgument, match=f"^{re.escape(text)}$"):
            SamplingParams(**{name: value})  # type: ignore[arg-type]


def test_none_is_no_stop_and_no_bias() -> None:
    params = SamplingParams(stop=None, stop_tokens=None, logit_bias=None)
    assert params == SamplingParams()
    assert params.stop_strings == ()


def test_numbers_may_be_numpys() -> None:
    params = SamplingParams(
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        max_tokens=np.int64(5),  # type: ignore[arg-type]
        stop_tokens=np.array([1, 2]),  # type: ignore[arg-type]
        logit_bias={np.int32(3): np.float64(1.5)},  # type: ignore[dict-item]
        ignore_eog=np.bool_(True),  # type: ignore[arg-type]
    )
    assert (params.temperature, params.max_tokens, params.ignore_eog) == (0.5, 5, True)
    assert type(params.max_tokens) is int
    with pytest.raises(InvalidArgument, match="max_tokens is"):
        SamplingParams(max_tokens=np.float32(5))  # type: ignore[arg-type]


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


def test_a_fraction_beyond_all_floats() -> None:
    assert SamplingParams(temperature=Fraction(1, 2)).temperature == 0.5
    with pytest.raises(InvalidArgument, match="temperature is Fraction"):
        SamplingParams(temperature=Fraction(10**400, 3))
