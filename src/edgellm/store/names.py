"""The grammar of model names and of what may stand after `edgellm pull`.

Names become file names, so they are an allow-list: anything the pattern does not spell out is refused,
which leaves no room for separators, `..`, NUL, drive letters, percent signs or look-alike characters.
The pattern is the idea of Ollama's fix for CVE-2024-37032 (a digest that was a path), applied to names.
"""

from __future__ import annotations

import re

from edgellm.store.faults import BadName

_WORD = r"[a-z0-9](?:[a-z0-9._-]{0,94}[a-z0-9_-])?"
_NAME = rf"({_WORD})(?::({_WORD}))?"  # patterns are compiled when first used: most runs need one or two
# Windows opens these as devices whatever follows the first dot.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
)
_HUB = r"hf:([A-Za-z0-9][\w.-]{0,95})/([A-Za-z0-9][\w.-]{0,95})(?::([\w./-]{1,200}))?"


def is_name(text: str) -> bool:
    """Whether *text* can be a model's name, like ``smollm2`` or ``gemma3:270m`` (capitals count as small)."""
    match = re.fullmatch(_NAME, text.lower(), re.ASCII) if len(text) < 200 else None
    if match is None or ".." in text:
        return False
    return not any(part and part.partition(".")[0] in _DEVICES for part in match.groups())


def check_name(text: str) -> str:
    """The name in small letters.

    Raises:
        BadName: *text* is not a name.
    """
    if not is_name(text):
        raise BadName(
            f"{shown(text)} is not a model name: use up to 96 of the letters a-z, digits, '.', '_', '-', "
            "and at most one ':tag', as in 'gemma3:270m'"
        )
    return text.lower()


def check_sha256(text: object) -> str:
    """A sha256 in 64 small hexadecimal digits.

    Raises:
        BadName: *text* is something else.
    """
    if isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text.lower(), re.ASCII):
        return text.lower()
    raise BadName(f"{shown(str(text))} is not a sha256: it has 64 hexadecimal digits")


def file_name(name: str) -> str:
    """The manifest's file name for a model name; ``:`` cannot be in a file name on Windows."""
    return check_name(name).replace(":", "@") + ".json"


def name_from_file(file: str) -> str:
    """A name for a file called *file*, like ``tiny-llama.q4_0`` for ``Tiny Llama.Q4_0.gguf``."""
    stem = re.sub(r"\.gguf$", "", file, flags=re.IGNORECASE).lower()
    word = re.sub(r"[^a-z0-9._-]+", "-", stem)
    word = re.sub(r"\.{2,}", ".", word)[:96].strip("-._")
    return word if is_name(word) else "model"


def parse_hub(spec: str) -> tuple[str, str, str | None]:
    """``hf:org/repo:what`` as (org, repo, what or None).

    Raises:
        BadName: *spec* is not of that form.
    """
    match = re.fullmatch(_HUB, spec, re.ASCII)
    if match is None or ".." in spec:
        raise BadName(
            f"{shown(spec)} does not name a file on the Hub: write hf:ORG/REPO, hf:ORG/REPO:Q4_K_M "
            "or hf:ORG/REPO:file.gguf"
        )
    return match[1], match[2], match[3]


def is_spec(text: str) -> bool:
    """Whether *text* names a place on a network rather than a model or a file."""
    return text.startswith("hf:") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def shown(text: str, limit: int = 120) -> str:
    """*text* fit for a message: quoted, control characters escaped, not longer than *limit*."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)
    return f"'{safe}'" if len(safe) <= limit else f"'{safe[:limit]}...'"


def megabytes(n_bytes: int) -> str:
    """A size for people: ``98 MB``, ``1.3 GB``, ``512 B``."""
    for unit, size in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)):
        if n_bytes >= size:
            value = n_bytes / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{n_bytes} B"
