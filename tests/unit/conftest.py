"""Fixtures of the store's tests: a store of their own, a file to register, a web server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.store import Store
from edgellm.store import url as url_module
from tests.support.store import MODEL, Server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGELLM_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(url_module, "TIMEOUT", 5.0)
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Store:
    return Store()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "Mine.Q4_0.gguf"
    path.write_bytes(MODEL[:5000])
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()
