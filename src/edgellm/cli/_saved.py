"""The files that /save writes and /load reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_SAVED = 64 << 20


def path_of(text: str, command: str) -> Path:
    """
    The file that *text* after *command* names.

    Raises:
        ValueError: It names none.
    """
    if not text:
        raise ValueError(f"/{command} wants the name of a file")
    path = Path(text).expanduser().absolute()
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'no ordinary file'}: name a file")
    return path


def write(path: Path, data: dict[str, Any]) -> None:
    """
    Put a conversation at *path*; a file that was there keeps its permissions.

    Raises:
        ValueError: It cannot be written.
    """
    from edgellm.store.folders import write_atomically

    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else None
        write_atomically(path, json.dumps(data, ensure_ascii=False, indent=1).encode())
        if mode is not None:
            path.chmod(mode)
    except OSError as error:  # whose own file name may be that of the temporary file
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None


def read(path: Path) -> tuple[list[dict[str, str]], str | None]:
    """
    The messages and the system message in a saved conversation.

    Raises:
        ValueError: It cannot be read, or is not one.
    """
    try:
        with path.open("rb") as file:
            saved = json.loads(file.read(MAX_SAVED))
        messages = [{"role": m["role"], "content": m["content"]} for m in saved["messages"]]
        system = saved.get("system")
        sound = all(m["role"] in ("user", "assistant") and isinstance(m["content"], str) for m in messages)
        if not sound or not (system is None or isinstance(system, str)):
            raise ValueError
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} is not a conversation that /save wrote") from None
    return messages, system
