"""What the tests of the store share: a model of three megabytes, and a web server that can misbehave."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgellm.store import Store

# Three megabytes of period 251, so that blocks in the wrong place show.
MODEL = (b"GGUF" + bytes(range(251)) * 12_600)[:3_000_000]
DIGEST = hashlib.sha256(MODEL).hexdigest()


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


def answer(status: int, headers: dict[str, str], body: bytes = b"") -> Callable[[Any], None]:
    def send(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def no_debris(store: Store) -> bool:
    """Nothing half done is left: no part, no lock, no temporary file."""
    return not store.unfinished() and not [n for n in files_below(store.root) if n.endswith((".tmp", ".lock"))]


def pull_url(store: Store, url: str, **options: Any) -> Any:
    return store.pull(url, insecure=True, **options)


def write_catalog(home: Path, source: str, n_bytes: int = len(MODEL), sha256: str = DIGEST) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "catalog.toml").write_text(
        f'[[model]]\nname = "tiny"\naliases = ["tiny:3m"]\ntitle = "three megabytes"\nlicence = "MIT"\n'
        f'sha256 = "{sha256}"\nn_bytes = {n_bytes}\n[model.source]\n{source}\n'
    )
