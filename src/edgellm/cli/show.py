"""``edgellm show``: what is in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgellm.cli import _model, _options
from edgellm.cli._text import number, print_json, table
from edgellm.errors import InvalidArgument
from edgellm.store.names import megabytes, shown
from edgellm.store.shelf import Entry, Shelf


@click.command("show")
@click.argument("model")
@click.option("--tensors", is_flag=True, help="Also list every tensor.")
@click.option("--template", is_flag=True, help="Print the chat template alone.")
@_options.as_json
def command(model: str, tensors: bool, template: bool, as_json: bool) -> None:
    """Tell what is in a model.

    MODEL is a .gguf file or the name of a model on this machine. Only the file's header is read.
    """
    path = _model.resolve(model)
    found = _model.inspect(path, 8)
    metadata = found["metadata"]
    if template:
        text = metadata.get("tokenizer.chat_template")
        if not isinstance(text, str):
            raise InvalidArgument(f"{model} has no chat template")
        click.echo(text)
        return
    entry = _entry(model, path)
    if as_json:
        report = {"path": str(path), "store": entry.as_json() if entry else None, **found}
        if not tensors:
            report["tensors"] = len(found["tensors"])
        print_json(report)
        return
    click.echo(table(_summary(path, found, entry)))
    click.echo("\nMETADATA")
    click.echo(table([[key, _short(metadata[key])] for key in sorted(metadata)]))
    if tensors:
        rows = [
            [t["name"], t["type"], " x ".join(map(str, t["shape"])), megabytes(t["n_bytes"])] for t in found["tensors"]
        ]
        click.echo("\n" + table([["TENSOR", "TYPE", "SHAPE", "SIZE"], *rows], right={3}))


def _entry(model: str, path: Path) -> Entry | None:
    """The store's entry for *path*, if *model* is a name in it."""
    entry = Shelf().find(model)
    return entry if entry is not None and entry.path == path else None


def _summary(path: Path, found: dict[str, Any], entry: Entry | None) -> list[list[str]]:
    metadata = found["metadata"]
    arch = str(metadata.get("general.architecture", "?"))
    tensors = found["tensors"]
    rows = [["file", str(path)], ["size", megabytes(path.stat().st_size)], ["architecture", arch]]
    if entry is not None:
        rows += [["title", entry.title or "-"], ["licence", entry.licence or "-"], ["sha256", entry.sha256 or "-"]]
    rows.append(
        ["parameters", f"{sum(_elements(t) for t in tensors) / 1e6:.1f} million in {number(len(tensors), 'tensor')}"]
    )
    rows.append(["weights", _types(tensors)])
    for label, key in (("context", "context_length"), ("layers", "block_count"), ("embedding", "embedding_length")):
        if f"{arch}.{key}" in metadata:
            rows.append([label, _short(metadata[f"{arch}.{key}"])])
    rows.append(["chat template", "yes" if "tokenizer.chat_template" in metadata else "no"])
    return rows


def _elements(tensor: dict[str, Any]) -> int:
    count = 1
    for size in tensor["shape"]:
        count *= int(size)
    return count


def _types(tensors: list[dict[str, Any]]) -> str:
    """The weight types with their bytes, largest first."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor["type"]] = sizes.get(tensor["type"], 0) + int(tensor["n_bytes"])
    ranked = sorted(sizes.items(), key=lambda item: -item[1])
    return ", ".join(f"{kind} {megabytes(size)}" for kind, size in ranked) or "none"


def _short(value: Any) -> str:
    """A metadata value in at most a line."""
    if isinstance(value, str):
        return shown(value, 90)[1:-1]
    text = str(value)
    return text if len(text) <= 90 else text[:87] + "..."
