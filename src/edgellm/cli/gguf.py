"""``edgellm gguf``: look into, compare, split, merge and edit GGUF files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgellm.cli import _options
from edgellm.cli._text import number, print_json, say, table
from edgellm.cli._work import progress
from edgellm.store.names import megabytes, shown

if TYPE_CHECKING:
    from edgellm.tools.gguf_file import Entry

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(dir_okay=False, path_type=Path)
force_option = click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


@click.group("gguf", no_args_is_help=True)
def command() -> None:
    """Look into GGUF files, and split, merge, compare and edit them.

    Nothing here loads a model: files are read piece by piece, and a file that is written appears under its name only
    when it is complete. A model that is only read may also be a name from 'edgellm ls'.
    """


def size(text: str) -> int:
    """
    Bytes from words like 500M, 2G or 1.5GiB.

    Raises:
        click.BadParameter: They are none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?I?)B?", text.strip().upper())
    if match is None or match[2] not in _UNITS or float(match[1]) * _UNITS[match[2]] < 1:
        raise click.BadParameter(f"'{text}' is not a size: write 500M, 2G or 2GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def _value(value: Any, count: int) -> str:
    """A value in at most a line."""
    if isinstance(value, str):
        return shown(value, 90)
    text = str(value)
    if isinstance(value, list) and count > len(value):
        text = f"{text[:-1]}, ...] ({count} items)"
    return text if len(text) <= 110 else text[:107] + "..."


@command.command("dump")
@click.argument("file", type=_options.ModelFile())
@click.option("--keys", "only_keys", is_flag=True, help="Only the keys.")
@click.option("--tensors", "only_tensors", is_flag=True, help="Only the tensors.")
@_options.as_json
def dump_command(file: Path, only_keys: bool, only_tensors: bool, as_json: bool) -> None:
    """Print the keys and tensors of FILE.

    Arrays are cut after a few items; --json gives them whole.
    """
    from edgellm.tools.dump import dump

    found = dump(file, None if as_json else 8)
    if only_keys and not only_tensors:
        del found["tensors"]
    if only_tensors and not only_keys:
        del found["keys"]
    if as_json:
        print_json(found)
        return
    head = f"{found['file']}: GGUF {found['version']}, {megabytes(found['size'])}, alignment {found['alignment']}"
    click.echo(f"{head}, data from byte {found['data_start']}")
    if "keys" in found:
        click.echo(f"\n{len(found['keys'])} KEYS")
        click.echo(_table([[k["key"], k["type"], _value(k["value"], k["count"])] for k in found["keys"]]))
    if "tensors" in found:
        click.echo(f"\n{len(found['tensors'])} TENSORS")
        rows = [
            [t["name"], t["type"], _shape(t["shape"]), str(t["offset"]), str(t["n_bytes"])] for t in found["tensors"]
        ]
        click.echo(_table([["NAME", "TYPE", "SHAPE", "OFFSET", "BYTES"], *rows] if rows else [], {3, 4}))


def _table(rows: list[list[str]], right: set[int] | None = None) -> str:
    return table(rows, right) if rows else "none"


def _shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


@command.command("hash")
@click.argument("file", type=_options.ModelFile())
@click.option("--check", "manifest", type=FILE, metavar="MANIFEST", help="Compare with digests printed before.")
@click.option(
    "-a",
    "--algorithm",
    "algorithms",
    multiple=True,
    type=click.Choice(["sha256", "sha1", "xxh64"]),
    help="Which digests; may be repeated.  [default: sha256]",
)
@_options.as_json
def hash_command(file: Path, manifest: Path | None, algorithms: tuple[str, ...], as_json: bool) -> None:
    """Print digests of FILE: of every tensor, of all tensor data, and of the whole file.

    The output is a manifest for --check, in the format of llama.cpp's gguf-hash. With --check the exit code is 0 if
    every digest is right and every tensor is listed, else 1.
    """
    from edgellm.tools import hashing

    if manifest is not None:
        if algorithms:
            raise click.UsageError("--check takes the algorithms that the manifest names: leave out --algorithm")
        _check(file, manifest, as_json)
        return
    with progress() as report:
        found = list(hashing.digests(file, list(dict.fromkeys(algorithms)) or ["sha256"], report))
    if as_json:
        print_json([{"algorithm": d.algorithm, "hex": d.hex, "tensor": d.tensor} for d in found])
    else:
        click.echo("\n".join(d.line(file.name) for d in found))


def _check(file: Path, manifest: Path, as_json: bool) -> None:
    from edgellm.tools import hashing

    with progress() as report:
        verdicts = hashing.check(file, manifest, report)
    wrong = sum(word != "ok" for word, _ in verdicts)
    if as_json:
        print_json([{"algorithm": d.algorithm, "tensor": d.tensor, "verdict": word} for word, d in verdicts])
    else:
        click.echo("\n".join(f"{d.line(file.name)}  {word}" for word, d in verdicts))
        say(
            f"{wrong} of {len(verdicts)} digests are not as {manifest} says"
            if wrong
            else f"all {len(verdicts)} are right"
        )
    if wrong:
        raise click.exceptions.Exit(1)


@command.command("split")
@click.argument("file", type=_options.ModelFile())
@click.argument("out")
@click.option("--max-size", metavar="SIZE", help="No part is larger: 500M, 2G, 2GiB.")
@click.option("--max-tensors", type=click.IntRange(min=1), metavar="N", help="No part has more tensors.")
@force_option
@_options.as_json
def split_command(
    file: Path, out: str, max_size: str | None, max_tensors: int | None, force: bool, as_json: bool
) -> None:
    """Split FILE into OUT-00001-of-00003.gguf and so on.

    edgellm and llama.cpp open such a model by its first part.
    """
    from edgellm.tools.split import split

    if max_size is None and max_tensors is None:
        raise click.UsageError("say where to cut, with --max-size 2G or --max-tensors 100")
    limit = size(max_size) if max_size is not None else None
    with progress() as report:
        parts = split(file, out, max_bytes=limit, max_tensors=max_tensors, force=force, report=report)
    rows = [{"path": str(p.path), "n_bytes": p.path.stat().st_size, "tensors": len(p.tensors)} for p in parts]
    if as_json:
        print_json(rows)
    else:
        say(f"{number(len(parts), 'part')}, the first is {parts[0].path}")


@command.command("merge")
@click.argument("first", type=_options.ModelFile())
@click.argument("out", type=OUT)
@force_option
@_options.as_json
def merge_command(first: Path, out: Path, force: bool, as_json: bool) -> None:
    """Merge a split file into OUT.

    FIRST is the part named ...-00001-of-0000N.gguf; the others lie beside it.
    """
    from edgellm.tools.split import merge

    with progress() as report:
        count = merge(first, out, force=force, report=report)
    if as_json:
        print_json({"path": str(out), "parts": count, "n_bytes": out.stat().st_size})
    else:
        say(f"{out} has all of {count} parts ({megabytes(out.stat().st_size)})")


@command.command("set")
@click.argument("file", type=str)
@click.argument("key")
@click.argument("value", required=False)
@click.option("--from", "source", type=FILE, metavar="TEXTFILE", help="Take the value from a file.")
@click.option("--type", "type_name", metavar="TYPE", help="u32, f32, bool, str ...; with [] an array, written as JSON.")
@click.option("-o", "--out", type=OUT, help="Write a changed copy here.")
@click.option("--in-place", is_flag=True, help="Overwrite the value in FILE; its type and size must stay.")
@force_option
@_options.as_json
def set_command(
    file: str,
    key: str,
    value: str | None,
    source: Path | None,
    type_name: str | None,
    out: Path | None,
    in_place: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Give KEY of FILE another VALUE, or add it.

    The type stays as it is; that of a new key is guessed from VALUE unless --type names it. For example:

        edgellm gguf set model.gguf tokenizer.chat_template --from chat.jinja -o better.gguf
    """
    from edgellm.tools.edit import set_in_place, set_key

    if (value is None) == (source is None):
        raise click.UsageError("give VALUE, or --from TEXTFILE")
    if (out is None) != in_place:
        raise click.UsageError("say where the result goes: -o OUT, or --in-place")
    here = click.get_current_context()
    kind = FILE if in_place else _options.ModelFile()  # what the store holds under a name stays as it is
    model: Path = kind.convert(file, here.command.params[0], here)
    text = value if value is not None else _read(source)
    before: Entry | None
    if out is None:
        before, new = set_in_place(model, key, text, type_name)
    else:
        with progress() as report:
            before, new = set_key(model, out, key, text, type_name, force=force, report=report)
    if as_json:
        old = before.value() if before is not None else None
        print_json({"path": str(out or file), "key": key, "type": new.type_name, "old": old, "new": new.value()})
        return
    was = _value(before.value(8), before.count) if before is not None else "absent"
    say(f"{out or file}: {key} ({new.type_name}) is {_value(new.value(8), new.count)}, was {was}")


def _read(source: Path | None) -> str:
    assert source is not None
    try:
        return source.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{source} is not UTF-8 text: byte {error.start}") from None


@command.command("diff")
@click.argument("a", type=_options.ModelFile())
@click.argument("b", type=_options.ModelFile())
@click.option("--no-values", is_flag=True, help="Do not read the tensors' data.")
@_options.as_json
def diff_command(a: Path, b: Path, no_values: bool, as_json: bool) -> None:
    """Tell in what A and B differ: keys, tensors, types, shapes and values.

    The exit code is 0 if they are the same, 1 if not. Weights of different types are compared as numbers.
    """
    from edgellm.tools.diff import diff

    with progress() as report:
        found = diff(a, b, values=not no_values, report=report)
    if as_json:
        print_json(found)
    else:
        _print_diff(found)
    if not found["same"]:
        raise click.exceptions.Exit(1)


def _print_diff(found: dict[str, Any]) -> None:
    """One line for each difference: - only in A, + only in B, ~ in both but different."""
    for sign, name in (("-", "removed"), ("+", "added")):
        for key in found["metadata"][name]:
            click.echo(f"{sign} {key['key']} ({key['type']}) {_value(key['value'], key['count'])}")
    for key in found["metadata"]["changed"]:
        old, new = key["old"], key["new"]
        kinds = old["type"] if old["type"] == new["type"] else f"{old['type']} -> {new['type']}"
        where = f" from item {key['first_difference']} on" if "first_difference" in key else ""
        click.echo(
            f"~ {key['key']} ({kinds}){where} {_value(old['value'], old['count'])} -> "
            f"{_value(new['value'], new['count'])}"
        )
    for sign, name in (("-", "removed"), ("+", "added")):
        for tensor in found["tensors"][name]:
            click.echo(f"{sign} {tensor['name']} {tensor['type']} {_shape(tensor['shape'])}")
    for tensor in found["tensors"]["changed"]:
        words = []
        if "type" in tensor:
            words.append(" -> ".join(tensor["type"]))
        if "shape" in tensor:
            words.append(" -> ".join(map(_shape, tensor["shape"])))
        if "max_abs_diff" in tensor:
            apart = tensor["max_abs_diff"]
            words.append("values differ" if apart is None else f"values differ by up to {apart:.6g}")
        click.echo(f"~ {tensor['name']} {', '.join(words)}")
    if found["same"]:
        say("the files have the same keys and tensors")
