"""Pulling from URLs: cut connections, changed files, hostile servers, secrets. All on this machine."""

from __future__ import annotations

import base64
import http.server
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm.store import Store
from edgellm.store import url as url_module
from edgellm.store.faults import BadName, DownloadFailed, Offline, StoreError, WrongDigest
from tests.support.store import DIGEST, MODEL, Server, answer, files_below, no_debris, pull_url, write_catalog


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
