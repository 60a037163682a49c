"""Change one key of a GGUF file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgellm.errors import InvalidArgument
from edgellm.tools.ggml_types import ARRAY, STRING, VALUE_NAMES
from edgellm.tools.gguf_file import Entry, GgufFile, Report, no_report
from edgellm.tools.gguf_header import Progress, entry, header
from edgellm.tools.outputs import Outputs


def parsed(text: str, type_name: str) -> Any:
    """
    What a person typed, as a value of that type: a JSON list for arrays.

    Raises:
        InvalidArgument: It is none.
    """
    if type_name.endswith("[]"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidArgument(f"an array is written as JSON, like [1, 2, 3]: {error}") from None
    if type_name == "str":
        return text
    if type_name == "bool":
        if text.lower() not in ("true", "false"):
            raise InvalidArgument(f"a bool is true or false, not '{text}'")
        return text.lower() == "true"
    try:
        return float(text) if type_name in ("f32", "f64") else int(text, 0)
    except ValueError:
        raise InvalidArgument(f"'{text}' is not a value of type {type_name}") from None


def guessed_type(text: str) -> str:
    """The type of a new key's value: bool, u32 or i32 (64 bits where needed), f32, or str."""
    if text.lower() in ("true", "false"):
        return "bool"
    try:
        number = int(text, 0)
    except ValueError:
        try:
            float(text)
        except ValueError:
            return "str"
        return "f32"
    bits = 32 if -(1 << 31) <= number < 1 << 32 else 64
    return f"{'i' if number < 0 else 'u'}{bits}"


def changed(source: GgufFile, key: str, text: str, type_name: str | None) -> tuple[Entry | None, Entry]:
    """
    The key's entry now (None: it is new) and as it will be.

    Raises:
        InvalidArgument: The value does not fit, or this key cannot be changed so.
    """
    old = source.entries.get(key)
    if not key or len(key.encode()) > 65535:
        raise InvalidArgument("a key has 1 to 65535 bytes")
    if key == "general.alignment":
        raise InvalidArgument("general.alignment says where every tensor's data lies; it cannot be changed alone")
    name = type_name or (old.type_name if old is not None else guessed_type(text))
    new = entry(key, name, parsed(text, name))
    if key == "general.architecture" and new.type != STRING:
        raise InvalidArgument("general.architecture must be a string")
    return old, new


def set_in_place(path: Path, key: str, text: str, type_name: str | None = None) -> tuple[Entry, Entry]:
    """
    Overwrite a value in the file itself.

    Returns:
        The entry before and after.

    Raises:
        InvalidArgument: The value does not fit, the key is new, or its value would change size or type.
        FileError: The file cannot be written.
    """
    with GgufFile(path) as source:
        old, new = changed(source, key, text, type_name)
    if old is None:
        raise InvalidArgument(f"{path.name} has no key '{key}' to overwrite: use -o OUT instead of --in-place")
    if old.type_name != new.type_name or len(old.payload) != len(new.payload):
        raise InvalidArgument(
            f"the value of '{key}' is {_words(old)} now and would be {_words(new)}: use -o OUT instead of --in-place"
        )
    with path.open("rb+") as file:
        file.seek(old.offset)
        file.write(new.payload)
        file.flush()
        os.fsync(file.fileno())
    return old, new


def _words(e: Entry) -> str:
    return f"{e.type_name} in {len(e.payload)} bytes"


def set_key(
    path: Path,
    out: Path,
    key: str,
    text: str,
    type_name: str | None = None,
    *,
    force: bool = False,
    report: Report = no_report,
) -> tuple[Entry | None, Entry]:
    """
    Write a copy of a file in which one key has another value; a new key comes last.

    Args:
        path: The file.
        out: The copy.
        key: The key.
        text: Its value as `parsed` reads it.
        type_name: As ``u32`` or ``str[]``; None: the type it has, for a new key a guess.
        force: Replace a file that exists.
        report: Told of the bytes copied.

    Returns:
        The entry before (None: it was new) and after.

    Raises:
        InvalidArgument, FileError, FormatError: The value does not fit, or see `Outputs`.
    """
    with GgufFile(path) as source:
        old, new = changed(source, key, text, type_name)
        head = header((source.entries | {key: new}).values(), source.tensors, source.alignment, source.version)
        n_bytes = source.size - source.data_start
        progress = Progress(report, f"writing {out.name}", n_bytes)
        with Outputs([out], len(head) + n_bytes, force=force) as outputs, outputs.open() as file:
            file.write(head)
            for chunk in source.chunks(source.data_start, n_bytes):
                file.write(chunk)
                progress.add(len(chunk))
    return old, new


TYPE_NAMES = [name for name in VALUE_NAMES if VALUE_NAMES.index(name) != ARRAY]
