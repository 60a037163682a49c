"""`edgellm doctor`: what it judges from given facts, and that it always has something to print."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm.cli import doctor

Cli = Callable[..., Any]
SOUND: dict[str, Any] = {
    "versions": {"edgellm": "1", "python": "3", "platform": "p", "executable": "/py", **dict.fromkeys(doctor.PACKAGES)},
    "system": {
        "features_found": ["sse3", "avx2"], "features_used": ["sse3", "avx2"], "ggml": {"isa": "avx2"}, "threads": 2,
        "cgroup_cpus": None, "memory_total": 1 << 34, "memory_available": 1 << 33,
    },
    "swap": {"total": 0, "free": None},
    "governor": None,
    "store": {
        "folder": "/f", "writable": True, "models": 1, "model_bytes": 5, "missing": [], "unfinished_bytes": 0,
        "free_bytes": 10**10,
    },
    "environment": {},
}  # fmt: skip


def test_sound_machine() -> None:
    assert doctor.problems(SOUND) == []
    text = doctor.report(SOUND, [])
    assert "no problems found" in text
    assert "sse3 avx2" in text
    assert "17 GB" in text


@pytest.mark.parametrize(
    ("section", "key", "value", "words", "fatal"),
    [
        ("system", "error", "OSError: no", "the library does not load (OSError: no)", True),
        ("store", "error", "x: denied", "cannot be read", True),
        ("store", "writable", False, "cannot be written", False),
        ("store", "free_bytes", 1000, "only 1.0 kB are free", False),
        ("store", "unfinished_bytes", 5_000_000, "interrupted pulls hold 5.0 MB", False),
        ("store", "missing", ["m"], "registered as m is gone", False),
        ("system", "cgroup_cpus", 1.5, "gives 1.5 processors for 2 threads", False),
        ("system", "memory_available", 10**8, "100 MB of memory are free", False),
        ("system", "features_found", ["sse3", "avx2", "fma"], "not used though present: fma", False),
        ("environment", "EDGELLM_OFFLINE", "1", "nothing can be pulled", False),
        ("environment", "EDGELLM_CPU_BACKEND", "gpu", "EDGELLM_CPU_BACKEND=gpu is no backend", False),
        ("environment", "EDGELLM_CPU_BACKEND", "ggml", "ggml's backend runs the graphs", False),
    ],
)
def test_problems(section: str, key: str, value: Any, words: str, fatal: bool) -> None:
    facts = copy.deepcopy(SOUND)
    facts[section][key] = value
    (problem,) = doctor.problems(facts)
    assert words in problem["text"]
    assert problem["advice"]
    assert problem["fatal"] is fatal
    assert words in doctor.report(facts, [problem])


def test_command(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "system_info", lambda: SOUND["system"])
    monkeypatch.setenv("EDGELLM_CANARY", "x")
    result = cli("doctor", "--json")
    assert result.code == 0
    facts = json.loads(result.out)
    assert facts["system"]["threads"] == 2
    assert facts["store"]["folder"] == str(home / "models")
    assert facts["environment"]["EDGELLM_CANARY"] == "x"
    assert not home.exists()  # looking makes nothing
    assert "model folder" in cli("doctor").out


def test_folders_and_catalogs_that_are_none(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "system_info", lambda: SOUND["system"])
    home.mkdir()
    for text, words in (("[mine]\n", "has no model: each begins with a line [[model]]"), ("[[", "cannot be read")):
        (home / "catalog.toml").write_text(text)
        result = cli("doctor")
        assert (result.code, words in result.out) == (0, True)
    (home / "catalog.toml").unlink()
    home.rmdir()
    home.write_text("")
    result = cli("doctor")
    assert result.code == 1
    assert (
        f"!! the model folder cannot be read ({home} is not a folder): set EDGELLM_HOME to another folder" in result.out
    )


def test_broken_installation(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise OSError("libedgellm.so: cannot open")

    monkeypatch.setattr(doctor, "system_info", fail)
    result = cli("doctor")
    assert result.code == 1
    assert "!! the library does not load (OSError: libedgellm.so: cannot open)" in result.out
