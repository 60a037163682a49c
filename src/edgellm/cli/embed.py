"""``edgellm embed``: texts as vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgellm.cli import _model, _options
from edgellm.cli._text import print_json, say
from edgellm.errors import InvalidArgument


@click.command("embed")
@click.argument("model")
@click.argument("texts", nargs=-1)
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), help="Read one text per line from FILE; - is standard input."
)
@click.option("--pooling", type=click.Choice(["mean", "cls", "last", "none"]), help="Instead of what the file says.")
@click.option("--normalize/--no-normalize", default=True, show_default=True, help="Scale vectors to length 1.")
@click.option("--dimensions", type=click.IntRange(1), help="Keep only the first N numbers of each.")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long instead of stopping.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the vectors to a .npy file.")
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
    threads: int | None,
    as_json: bool,
) -> None:
    """Turn TEXTS into vectors.

    Each vector is one line of numbers on standard output; with --json one object with all of them, in the shape of
    OpenAI's API. Without TEXTS and --file, standard input is one text.
    """
    lines = _texts(texts, file)
    with _model.load_for_embedding(_model.locate(model), threads=threads) as llm:
        vectors = llm.embed(
            lines,
            pooling=pooling,  # type: ignore[arg-type]
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )
    if output is not None:
        _save(output, vectors)
        say(f"{output}: {len(lines)} vectors of {vectors[0].shape[-1]}")
    elif as_json:
        data = [{"object": "embedding", "index": i, "embedding": one.tolist()} for i, one in enumerate(vectors)]
        print_json({"object": "list", "model": model, "data": data})
    else:
        for one in vectors:
            for row in one.reshape(-1, one.shape[-1]):
                click.echo(" ".join(f"{number:.7g}" for number in row))


def _texts(texts: tuple[str, ...], file: Path | None) -> list[str]:
    if texts and file:
        raise click.UsageError("give texts or --file, not both")
    if texts:
        return [_model.check_text(text) for text in texts]
    if file is None:
        return [_model.read_input()]
    content = _model.read_input() if str(file) == "-" else file.read_text("utf-8", "replace")
    lines = [line for line in content.splitlines() if line.strip()]
    if not lines:
        raise InvalidArgument(f"{file} has no text")
    return lines


def _save(output: Path, vectors: Any) -> None:
    import numpy as np

    if isinstance(vectors, list):
        raise InvalidArgument("--pooling none gives a table for each text, which one .npy file cannot hold; use --json")
    with output.open("wb") as file:
        np.save(file, vectors)
