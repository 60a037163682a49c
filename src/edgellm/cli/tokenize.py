"""``edgellm tokenize``: how a model cuts a text."""

from __future__ import annotations

import click

from edgellm.cli import _model, _options
from edgellm.cli._text import print_json, table


@click.command("tokenize")
@click.argument("model")
@click.argument("text", required=False)
@click.option(
    "--add-special/--no-special", default=True, show_default=True, help="Add what the file puts around a text."
)
@click.option("--parse-special", is_flag=True, help="Turn text that spells a control token into that token.")
@_options.as_json
def command(model: str, text: str | None, add_special: bool, parse_special: bool, as_json: bool) -> None:
    """Show how MODEL cuts TEXT into tokens.

    Without TEXT, standard input is read. Only the vocabulary of the file is loaded.
    """
    text = _model.read_input() if text is None else _model.check_text(text)
    with _model.tokenizer(_model.locate(model)) as tokenizer:
        ids = tokenizer.encode(text, add_special=add_special, parse_special=parse_special)
        pieces = [tokenizer.decode([token], keep_special=True) for token in ids]
    if as_json:
        texts = [piece.decode("utf-8", "replace") for piece in pieces]
        hexes = [piece.hex() for piece in pieces]
        print_json({"model": model, "n_tokens": len(ids), "ids": ids, "pieces": texts, "piece_bytes": hexes})
    elif ids:
        rows = [[str(token), _quoted(piece)] for token, piece in zip(ids, pieces, strict=True)]
        click.echo(table(rows, right={0}))


def _quoted(piece: bytes) -> str:
    """A piece between quotes; bytes that are no text on their own in hexadecimal."""
    return repr(piece.decode("utf-8", "backslashreplace")).replace("\\\\x", "\\x")
