"""``edgellm embed``: texts as vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edgellm.cli import _model, _options
from edgellm.cli._text import number, print_json, say
from edgellm.errors import EdgellmError, InvalidArgument
from edgellm.tools.outputs import Outputs


@click.command("embed")
@click.argument("model")
@click.argument("texts", nargs=-1)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    help="Read one text per line from FILE, also empty ones; - is standard input.",
)
@click.option("--pooling", type=click.Choice(["mean", "cls", "last", "none"]), help="Instead of what the file says.")
@click.option("--normalize/--no-normalize", default=True, show_default=True, help="Scale vectors to length 1.")
@click.option("--dimensions", type=click.IntRange(1), help="Keep only the first N numbers of each.")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long instead of stopping.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the vectors to a .npy file.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@_options.threads
@_options.as_json
def command(
    model: str,
    texts: tuple[str, ...],
    file: Path | None,
    pooling: str | None,
    normalize: bool,
    dimensions: int | None,
    truncate: bool,
    output: Path | None,
    force: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Turn TEXTS into vectors.

    Each vector is one line of numbers on standard output; with --json one object with all of them, in the shape of
    OpenAI's API. With --pooling none a text has a line for each token, and an empty line follows it unless it is the
    last. Without TEXTS and --file, or when TEXTS is '-', standard input is one text. A text may have as many tokens as
    the model reads, 4096 at most.
    """
    lines = _texts(texts, file)
    if output is not None:
        Outputs([output], 0, force=force)  # what would be refused after minutes is refused now
    with _model.load_for_embedding(_model.locate(model), threads=threads) as llm, _lines_of(file):
        vectors = llm.embed(
            lines,
            pooling=pooling,  # type: ignore[arg-type]
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )
    if output is not None:
        _save(output, vectors, force)
        width = vectors[0].shape[-1]
        if as_json:
            print_json({"path": str(output), "vectors": len(lines), "dimensions": width})
        else:
            say(f"{output}: {number(len(lines), 'vector')} of {width}")
    elif as_json:
        data = [{"object": "embedding", "index": i, "embedding": one.tolist()} for i, one in enumerate(vectors)]
        print_json({"object": "list", "model": model, "data": data})
    else:
        for i, one in enumerate(vectors):
            if i and one.ndim > 1:
                click.echo()
            for row in one.reshape(-1, one.shape[-1]):
                click.echo(" ".join(f"{value:.7g}" for value in row))


def _texts(texts: tuple[str, ...], file: Path | None) -> list[str]:
    if texts and file:
        raise click.UsageError("give texts or --file, not both")
    if texts == ("-",):
        return [_model.read_input()]
    if texts:
        return [_model.check_text(text) for text in texts]
    if file is None:
        return [_model.read_input()]
    content = _model.read_input() if str(file) == "-" else file.read_text("utf-8", "replace")
    if not content.strip():
        raise InvalidArgument(f"{file} has no text")
    return [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]  # as others count lines


@contextmanager
def _lines_of(file: Path | None) -> Iterator[None]:
    """What the library says about text N is said about line N + 1 of *file*."""
    try:
        yield
    except EdgellmError as error:
        words = re.fullmatch(r"text (\d+) (.*)", str(error), re.DOTALL)
        if file is None or words is None:
            raise
        raise type(error)(f"line {int(words[1]) + 1} of {file} {words[2]}") from None


def _save(output: Path, vectors: Any, force: bool) -> None:
    import numpy as np

    if isinstance(vectors, list):
        raise InvalidArgument("--pooling none gives a table for each text, which one .npy file cannot hold; use --json")
    with Outputs([output], vectors.nbytes, force=force) as outputs, outputs.open() as file:
        np.save(file, vectors)
