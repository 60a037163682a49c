"""Pulls that meet a full disk, a kill at any moment, Ctrl-C, or another pull."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.store import Store
from edgellm.store import partial as partial_module
from edgellm.store import store as store_module
from edgellm.store import url as url_module
from edgellm.store.faults import DownloadFailed, NoSpace
from tests.support.store import DIGEST, MODEL, Server, files_below, no_debris, pull_url

SRC = Path(__file__).resolve().parents[2] / "src"


def test_free_space_is_checked_first(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = types.SimpleNamespace(free=1_000_000)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(NoSpace, match=r"7\.\d MB more.*1\.0 MB are free"):
        pull_url(store, server.url())
    assert store.list() == []


def test_disk_full_on_the_way(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_module, "CHECKPOINT_BYTES", 1 << 20)
    real = partial_module.Partial.write

    def write(self: Any, data: bytes) -> None:
        if self.offset > 2_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, data)

    monkeypatch.setattr(partial_module.Partial, "write", write)
    with pytest.raises(NoSpace, match=r"became full.*run the same command again"):
        pull_url(store, server.url())
    assert store.list() == []
    monkeypatch.setattr(partial_module.Partial, "write", real)
    server.requests.clear()
    assert pull_url(store, server.url()).path.read_bytes() == MODEL
    assert int(server.requests[0][1]["Range"].removeprefix("bytes=").removesuffix("-")) > 2_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB with room for nothing more; needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_what_was_written_last_is_there_to_be_verified(tmp_path: Path) -> None:
    with partial_module.Partial(tmp_path, "ab", "x") as partial:
        partial.write(b"few bytes stay in a buffer")
        partial.flush()
        assert partial.data.stat().st_size == partial.offset


@pytest.mark.parametrize("filled", range(0, 4, 1))
def test_a_real_full_disk(filled: int, small_disk: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC from the kernel: one sentence, nothing listed, and a pull that works after room was made."""
    monkeypatch.setattr(store_module, "RESERVE", -(1 << 40))  # so that the check in advance does not catch it
    monkeypatch.setattr(partial_module, "CHECKPOINT_BYTES", 1 << 19)
    store = Store(small_disk / "home")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((3 << 20) + filled * 200_000))
    with pytest.raises(NoSpace):
        pull_url(store, server.url())
    assert store.list() == []
    ballast.unlink()
    assert pull_url(store, server.url()).path.read_bytes() == MODEL
    assert no_debris(store)


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


PULL = """
import sys
from edgellm.store import Store
from edgellm.store import partial
partial.CHECKPOINT_BYTES = 1 << 18
Store().pull(sys.argv[1], insecure=True)
"""


def start_pull(spec: str, **environment: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", PULL, spec],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


def safe_bytes(store: Store) -> int:
    """Up to where the download's journal says that bytes are on the disk."""
    return sum(json.loads(path.read_bytes())["offset"] for path in store.partials.glob("*/journal.json"))


def test_kill_at_any_moment(store: Store, server: Server) -> None:
    """kill -9 again and again: the model is never listed before it is whole, and what was safe is not fetched again."""
    server.delay = 0.01
    choose = random.Random(7)
    spec = server.url() + f"#sha256={DIGEST}"
    continued = 0
    for attempt in range(13):
        safe, n_before = safe_bytes(store), len(server.requests)
        process = start_pull(spec)
        if attempt == 0:
            wait_until(lambda: safe_bytes(store) > 0)
        elif attempt < 12:
            time.sleep(0.1 + choose.random() * 0.5)
        else:
            server.delay = 0.0
            process.wait(120)
        process.kill()
        code = ended(process)
        for _, headers in server.requests[n_before:]:
            assert ("Range" in headers) == (safe > 0)
            continued += safe > 0
        for entry in store.list():
            assert entry.path.read_bytes() == MODEL
        if code == 0:
            break
    assert continued > 0
    assert store.get("m").path.read_bytes() == MODEL
    assert store.sweep() == 0
    assert no_debris(store)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c_during_a_pull(store: Store, server: Server) -> None:
    """The command line says nothing more, leaves with 130, and the next pull goes on."""
    server.delay = 0.2
    path = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "edgellm", "pull", "--insecure", server.url() + f"#sha256={DIGEST}"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(path.stat().st_size for path in store.partials.glob("*/data")))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert store.list() == []
    server.delay = 0.0
    assert pull_url(store, server.url() + f"#sha256={DIGEST}").path.read_bytes() == MODEL
    assert "Range" in server.requests[1][1]
    assert no_debris(store)


def test_kill_between_blob_and_manifest(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_publish", killed)
        with pytest.raises(KeyboardInterrupt):
            pull_url(store, server.url() + f"#sha256={DIGEST}")
    assert store.list() == []
    assert [path.name for path, _ in store.unfinished()] == [f"sha256-{DIGEST}"]
    pull_url(store, server.url() + f"#sha256={DIGEST}")
    assert len(server.requests) == 1
    assert [entry.name for entry in store.list()] == ["m"]


def test_sweep_frees_what_was_interrupted(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_module, "TRIES", 1)
    server.cut_after = [2_000_000, 0]
    with pytest.raises(DownloadFailed):
        pull_url(store, server.url())
    assert store.sweep() >= 2_000_000
    assert files_below(store.root) == set()


def test_two_pulls_at_once_are_one_download(store: Store, server: Server) -> None:
    server.delay = 0.005
    both = [start_pull(server.url() + f"#sha256={DIGEST}") for _ in range(2)]
    assert [ended(process) for process in both] == [0, 0]
    assert len(server.requests) == 1
    assert store.get("m").path.read_bytes() == MODEL
    assert no_debris(store)
