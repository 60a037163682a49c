"""
The two wheels that most devices want, built here and run on every processor they claim.

Skipped with a reason where compiler, emulator or Debian's packages are not to be had; EDGELLM_REQUIRE_CROSS=1 makes
that a failure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import build
import check
from common import targets
from tests.support.cross import Made

pytestmark = pytest.mark.cross


@pytest.fixture(params=["rpi-aarch64", "rpi-armv7"])
def wheel(request: pytest.FixtureRequest, made: Callable[[str], Made]) -> Made:
    return made(request.param)


def test_checks_and_proofs(wheel: Made) -> None:
    target, path, results = wheel
    # instructions are counted with Debian's qemu-user, which is another package than the emulator
    assert [one for one in results if one["result"] != "passed" and one["check"] != "budgets"] == []
    assert path.stat().st_size < 2_000_000
    for check_on_each in ("picked", "logits", "chat"):
        assert [one["cpu"] for one in results if one["check"] == check_on_each] == list(target["cpus"])
    tested = [target["cpus"][one["cpu"]] for one in results if one["check"] == "test_kernels"]
    assert tested == list(dict.fromkeys(target["cpus"].values()))
    assert {one["check"] for one in results} >= {"install", "refused", "doctor", "pages"}
    written = json.loads(path.with_name(f"{path.name}.proofs.json").read_text())
    assert written["results"] == results
    assert written["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_bytes_again(wheel: Made, tmp_path: Path) -> None:
    target, path, _ = wheel
    again = build.build(target, tmp_path)
    assert again.read_bytes() == path.read_bytes()


def test_it_is_found_out_under_another_tag(wheel: Made, tmp_path: Path) -> None:
    target, path, _ = wheel
    [other] = (one for one in targets().values() if one["tag"] == target["refuses"])
    renamed = tmp_path / path.name.replace(target["tag"], other["tag"])
    renamed.write_bytes(path.read_bytes())
    found = check.check(renamed, other)
    assert found["tags"]
    assert found["machine"]
