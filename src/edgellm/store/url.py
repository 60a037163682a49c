"""A file at an https URL: continued by range requests, capped, and with credentials kept at home.

What a hostile or broken server may try (redirects to other hosts or to http, wrong lengths, bodies that never end,
compressed bombs) ends in one sentence and at most the disk space that the file was said to need.
Continuing is safe in the way RFC 9110 section 13.1.5 describes: If-Range with a strong validator.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import IO, Any

from edgellm.store.faults import BadName, DownloadFailed
from edgellm.store.names import check_sha256, megabytes, shown
from edgellm.store.partial import Partial
from edgellm.store.source import Progress, Report

CHUNK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
TRIES = 5
REDIRECTS = 5
MAX_BYTES = 1 << 40  # of a file whose size nobody said; the free disk space is the other limit
_SECRET_HEADERS = ("Authorization", "Cookie", "Proxy-authorization")


class _Retry(Exception):  # noqa: N818 - a request, not an error
    """The connection broke; another try may go on from here."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, never from https to http, and leaves secrets behind when the host changes."""

    max_redirections = REDIRECTS
    max_repeats = 2

    def __init__(self, insecure: bool) -> None:
        self._insecure = insecure

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            check_scheme(newurl, self._insecure)
        except BadName:
            fp.close()
            raise
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and _origin(newurl) != _origin(req.full_url):
            for name in _SECRET_HEADERS:
                new.remove_header(name)
        return new


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def check_scheme(url: str, insecure: bool) -> None:
    """Refuse all but https, and http where it is asked for.

    Raises:
        BadName: Another scheme.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        raise BadName(f"{shown(url)} is not a URL") from None
    if parts.scheme == "http" and not insecure:
        raise BadName(f"{shown(_public(url))} is not encrypted: use https, or --insecure if you trust the network")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadName(f"{shown(_public(url))} cannot be pulled: edgellm reads https URLs")


def _public(url: str) -> str:
    """The URL without user name, password, query and fragment, for messages and manifests."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        if parts.port:
            host += f":{parts.port}"
    except ValueError:
        return "URL"
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


class UrlSource:
    """One file at *url*, which may end in ``#sha256=...``."""

    extra_bytes = 0

    def __init__(
        self,
        url: str,
        *,
        insecure: bool = False,
        n_bytes: int | None = None,
        sha256: str | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """
        Set it up.

        Args:
            insecure: Allow http.
            url: https, or http when *insecure*. ``user:password@`` becomes a header for that host alone.
            n_bytes: The exact size, if it is known.
            sha256: The digest, if it is known; the fragment of the URL wins.
            headers: More request headers; secret ones stay with the first host.
            max_bytes: Give up beyond this size when the server does not say one.
        """
        check_scheme(url, insecure)
        url, _, fragment = url.partition("#")
        if fragment:
            field, _, value = fragment.partition("=")
            if field != "sha256":
                raise BadName(f"{shown('#' + fragment)} at the end of a URL means nothing here: write #sha256=...")
            sha256 = check_sha256(value)
        self.url = url
        self.n_bytes = n_bytes
        self.sha256 = sha256
        self.public_url = _public(url)
        query = urllib.parse.urlsplit(url).query
        tag = "?" + hashlib.sha256(query.encode()).hexdigest()[:16] if query else ""
        self.place = self.public_url + tag  # tells queries apart without keeping what may be a signature
        self._insecure = insecure
        self._max_bytes = max_bytes
        self._headers = {"User-Agent": "edgellm", "Accept-Encoding": "identity", **(headers or {})}
        self._target = self._split_user(url)

    def _split_user(self, url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        if parts.username is not None:
            user = urllib.parse.unquote(parts.username)
            secret = f"{user}:{urllib.parse.unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(secret).decode()
            parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))

    @property
    def identity(self) -> str:
        """The digest, or the URL without secrets."""
        return f"sha256:{self.sha256}" if self.sha256 else f"url:{self.place}"

    @property
    def where(self) -> str:
        """The host."""
        return urllib.parse.urlsplit(self.url).hostname or self.public_url

    def prepare(self) -> None:
        """Nothing to ask: the size comes with the file."""

    def fetch(self, partial: Partial, report: Report) -> None:
        """See `Source.fetch`. Tries again after a broken connection as long as tries bring new bytes."""
        fruitless = 0
        while True:
            before = partial.offset
            try:
                self._attempt(partial, report)
                return
            except _Retry as error:
                fruitless = 0 if partial.offset > before else fruitless + 1
                if fruitless >= TRIES:
                    raise DownloadFailed(
                        f"{self.public_url} stopped answering ({error}); {megabytes(partial.offset)} are kept, "
                        "run the same command again to go on"
                    ) from None
                time.sleep(min(0.2 * 2**fruitless, 5.0))

    def _attempt(self, partial: Partial, report: Report) -> None:
        """One request, from where *partial* stands to the end of the file."""
        if self.n_bytes is not None and partial.offset == self.n_bytes:
            return
        try:
            response = self._open(partial)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, partial)
            return
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                raise DownloadFailed(
                    f"{self.public_url} has no certificate this machine trusts: {_reason(error)}"
                ) from None
            raise _Retry(_reason(error)) from None
        with response:
            total = self._begin(response, partial)
            self._body(response, partial, total, report)

    def _open(self, partial: Partial) -> Any:
        request = urllib.request.Request(self._target, headers=self._headers)  # noqa: S310 - see check_scheme
        validator = partial.notes.get("validator")
        if partial.offset and not validator and not self.sha256:
            partial.restart()  # nothing proves that the rest would be of the same file
        if partial.offset:
            request.add_header("Range", f"bytes={partial.offset}-")
            if isinstance(validator, str):
                request.add_header("If-Range", validator)
        opener = urllib.request.build_opener(_Redirects(self._insecure))
        return opener.open(request, timeout=TIMEOUT)

    def _refused(self, error: urllib.error.HTTPError, partial: Partial) -> None:
        """Turn an HTTP error into a sentence, a new start, or another try."""
        if error.code == 416 and partial.offset:  # we hold more than the file has now
            partial.restart()
            raise _Retry("the file became shorter")
        if error.code >= 500 or error.code in (408, 429):
            raise _Retry(f"HTTP {error.code}")
        advice = {
            401: "it wants a login or a token",
            403: "access is forbidden; a gated model needs its licence accepted and a token",
            404: "there is no such file",
        }.get(error.code, "the request was refused")
        if error.code in (301, 302, 303, 307, 308):
            advice = f"it redirects more than {REDIRECTS} times, or in a circle"
        raise DownloadFailed(f"{self.public_url} answered HTTP {error.code}: {advice}")

    def _begin(self, response: Any, partial: Partial) -> int | None:
        """Check the headers of an answer, bring *partial* to where it begins, and say the whole size."""
        headers = response.headers
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise DownloadFailed(f"{self.public_url} sent a compressed file although plain bytes were asked for")
        length = _number(headers.get("Content-Length"))
        total = length
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
            if match is None or int(match[1]) != partial.offset:
                partial.restart()
                raise _Retry("the server answered with another part of the file")
            total = int(match[3]) if match[3] != "*" else int(match[2]) + 1
        elif partial.offset:
            partial.restart()  # the file changed, or the server knows no ranges
        known = self.n_bytes if self.n_bytes is not None else _number(partial.notes.get("total"))
        if total is not None and self.n_bytes is not None and total != self.n_bytes:
            raise DownloadFailed(
                f"{self.public_url} has {total} bytes where {self.n_bytes} were expected: it is another file"
            )
        if response.status == 206 and total is not None and known is not None and total != known:
            partial.restart()
            raise _Retry("the file changed while it was fetched")
        if response.status != 206:
            etag = headers.get("ETag", "")
            validator = etag if etag.startswith('"') else headers.get("Last-Modified")
            partial.checkpoint(validator=validator, total=total)
        return total if total is not None else self.n_bytes

    def _body(self, response: Any, partial: Partial, total: int | None, report: Report) -> None:
        limit = total if total is not None else self._max_bytes
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
                raise _Retry(_reason(error)) from None
            if not chunk:
                break
            if partial.offset + len(chunk) > limit:
                self._too_long(partial, total)
            if partial.offset == 0:
                check_magic(chunk, self.public_url)
            partial.write(chunk)
            report(Progress("download", partial.offset, total))
        if total is not None and partial.offset < total:
            raise _Retry(f"the connection ended after {partial.offset} of {total} bytes")

    def _too_long(self, partial: Partial, total: int | None) -> None:
        partial.restart()
        limit = total if total is not None else self._max_bytes
        raise DownloadFailed(f"{self.public_url} sends more than {limit} bytes: this is not the file it promised")


def check_magic(start: bytes, what: str) -> None:
    """Refuse early what is not a GGUF file: a login page, a pointer file, an archive.

    Raises:
        DownloadFailed: The first four bytes are not ``GGUF``.
    """
    if len(start) >= 4 and start[:4] == b"GGUF":
        return
    kind = " but a web page" if start.lstrip()[:1] == b"<" else ""
    if start.startswith(b"version https://git-lfs"):
        kind = " but a Git LFS pointer"
    raise DownloadFailed(f"{what} is not a GGUF model{kind}: it begins with {shown(start[:16].decode('latin-1'))}")


def _number(value: object) -> int | None:
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,15}", value, re.ASCII) else None


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", None)
    if isinstance(cause, BaseException):
        return _reason(cause)
    if isinstance(error, TimeoutError):
        return f"no byte for {TIMEOUT:.0f} s"
    return shown(str(getattr(error, "strerror", None) or error or type(error).__name__).strip())[1:-1]
