"""A file on the Hugging Face Hub: which one, how large, and its digest. `url` fetches the bytes.

huggingface_hub (an extra) answers the questions, so that the user's login, mirror (HF_ENDPOINT) and proxies count; the
bytes come by plain range requests into our own folder, since its cache would keep a second copy.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from edgellm.store.faults import BadName, DownloadFailed, StoreError
from edgellm.store.names import check_sha256, parse_hub, shown
from edgellm.store.partial import Partial
from edgellm.store.source import Report
from edgellm.store.url import UrlSource

DEFAULT_QUANT = "Q4_K_M"
_SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


class HubSource:
    """``hf:org/repo``, ``hf:org/repo:QUANT`` or ``hf:org/repo:file.gguf``."""

    extra_bytes = 0

    def __init__(self, spec: str, *, insecure: bool = False) -> None:
        self.org, self.repo, self.choice = parse_hub(spec)
        self.n_bytes: int | None = None
        self.sha256: str | None = None
        self.licence = ""
        self.file = ""
        self._insecure = insecure
        self._url: UrlSource | None = None

    @property
    def identity(self) -> str:
        """The digest, or the file's name where the Hub gives none."""
        return f"sha256:{self.sha256}" if self.sha256 else f"hf:{self.org}/{self.repo}:{self.file}"

    @property
    def where(self) -> str:
        """The Hub."""
        return "the Hugging Face Hub"

    def prepare(self) -> None:
        """Choose the file and learn its size, digest and licence."""
        try:
            hub: Any = importlib.import_module("huggingface_hub")
        except ImportError:
            raise StoreError("pulling from the Hub needs huggingface_hub: pip install 'edgellm[hub]'") from None
        repo = f"{self.org}/{self.repo}"
        try:
            info = hub.HfApi().model_info(repo, files_metadata=True, timeout=30)
        except Exception as error:  # its exceptions come from requests or httpx, by version
            raise DownloadFailed(f"the Hub did not describe {repo}: {_first_line(error)}") from error
        files = {item.rfilename: item for item in info.siblings or [] if item.rfilename.endswith(".gguf")}
        self.file = choose(sorted(files), self.choice, repo)
        chosen = files[self.file]
        self.n_bytes = chosen.size
        self.sha256 = _digest(chosen.lfs)
        self.licence = str(getattr(info.card_data, "license", None) or "unknown licence")
        token = hub.get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = UrlSource(
            hub.hf_hub_url(repo, self.file, revision=info.sha),
            insecure=self._insecure,
            n_bytes=self.n_bytes,
            sha256=self.sha256,
            headers=headers,
        )

    def fetch(self, partial: Partial, report: Report) -> None:
        """See `Source.fetch`."""
        if self._url is None:
            self.prepare()
        assert self._url is not None
        self._url.fetch(partial, report)


def choose(files: list[str], choice: str | None, repo: str) -> str:
    """
    The file that *choice* means.

    Args:
        files: Names of the repository's .gguf files, sorted.
        repo: The repository, for messages.
        choice: A file's name, a quantization that its name contains, or None: Q4_K_M, else the first.

    Raises:
        BadName: None or several fit, or the model is split.
    """
    whole = [file for file in files if not _SPLIT.search(file)]
    whole = [file for file in whole if "mmproj" not in file.lower()] or whole
    if choice in whole and choice is not None:
        return choice
    if not files:
        raise BadName(f"{repo} has no .gguf file: edgellm reads GGUF, look for a repository whose name ends in -GGUF")
    fitting = [file for file in whole if _has_quant(file, choice or DEFAULT_QUANT)]
    if not fitting and choice is None:
        fitting = whole[:1]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise BadName(f"{repo} has several files for {shown(choice or DEFAULT_QUANT)}: name one, like {fitting[0]}")
    split = [file for file in files if _SPLIT.search(file) and (choice is None or _has_quant(file, choice))]
    if split:
        parts = _SPLIT.search(split[0])
        raise BadName(
            f"{shown(split[0])} is one of {int(parts[1]) if parts else '?'} parts; split models cannot be pulled yet: "
            "fetch the parts into one folder and give the path of the first"
        )
    raise BadName(f"{repo} has no file for {shown(choice or '')}: it has {', '.join(whole[:12]) or 'none'}")


def _has_quant(file: str, quant: str) -> bool:
    """Whether the name contains *quant* as a word: Q4_K_M is in `x-Q4_K_M.gguf`, Q4_K is not."""
    return re.search(rf"(?<![a-z0-9_]){re.escape(quant.lower())}(?![a-z0-9_])", file.lower()) is not None


def _digest(lfs: Any) -> str | None:
    """The sha256 in the Hub's LFS metadata, which is a dict or an object, by version."""
    value = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    return check_sha256(value) if value else None


def _first_line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0], 300)[1:-1]
