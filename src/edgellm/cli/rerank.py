"""``edgellm rerank``: texts in the order of how well they answer."""

from __future__ import annotations

from pathlib import Path

import click

from edgellm.cli import _model, _options
from edgellm.cli._text import print_json, table
from edgellm.errors import InvalidArgument


@click.command("rerank")
@click.argument("model")
@click.argument("query")
@click.argument("documents", nargs=-1)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="Read one document per line from FILE.")
@click.option("-n", "--top", type=click.IntRange(1), help="Show only the best N.")
@click.option("--truncate", is_flag=True, help="Cut documents that are too long instead of stopping.")
@_options.threads
@_options.as_json
def command(
    model: str,
    query: str,
    documents: tuple[str, ...],
    file: Path | None,
    top: int | None,
    truncate: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Order texts by how well they answer QUERY.

    MODEL is a reranker: a model with a classifier for pairs of texts. One line each: score, number, document.
    """
    texts = [_model.check_text(text) for text in documents]
    if file is not None:
        texts += [line for line in file.read_text("utf-8", "replace").splitlines() if line.strip()]
    if not texts:
        raise InvalidArgument("there are no documents: give them as arguments or with --file")
    with _model.load_for_embedding(_model.locate(model), threads=threads) as llm:
        best = llm.rerank(_model.check_text(query), texts, top_n=top, truncate=truncate)
    if as_json:
        results = [{"index": one.index, "relevance_score": one.score, "document": one.document} for one in best]
        print_json({"model": model, "results": results})
    else:
        click.echo(table([[f"{one.score:.4f}", str(one.index), one.document] for one in best], right={0, 1}))
