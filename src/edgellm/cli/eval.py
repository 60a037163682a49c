"""``edgellm eval``: how well a model predicts a text, and how far it is from another one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgellm.cli import _model, _options
from edgellm.cli._text import number, print_json, say, table
from edgellm.cli._work import counted
from edgellm.cli.gguf import OUT, force_option

if TYPE_CHECKING:
    from edgellm.evaluation.divergence import Divergence

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ctx_option = click.option(
    "--ctx", type=click.IntRange(min=8), default=512, show_default=True, help="Tokens of a chunk."
)
chunks_option = click.option("--chunks", type=click.IntRange(min=1), help="Read at most this many.  [default: all]")


@click.group("eval", no_args_is_help=True)
def command() -> None:
    """Measure how well a model predicts a text.

    The text is read in chunks, of which the second half is scored: the same figures as llama.cpp's llama-perplexity.
    """


@command.command("ppl")
@click.argument("model")
@click.option("--text", "text_path", type=FILE, required=True, metavar="FILE", help="The text, UTF-8.")
@ctx_option
@chunks_option
@_options.threads
@_options.as_json
def ppl_command(model: str, text_path: Path, ctx: int, chunks: int | None, threads: int | None, as_json: bool) -> None:
    """Print the perplexity of MODEL on a text.

    It is e to the mean of -log p over the tokens scored; lower is better, and only figures of one vocabulary compare.
    """
    from edgellm.evaluation.chunks import Reader, read_text
    from edgellm.evaluation.perplexity import perplexity

    text = read_text(text_path)
    with Reader(_model.locate(model), ctx, threads or 0) as reader, counted("chunks") as report:
        found = perplexity(reader, reader.chunks(text, chunks), report=report)
    if as_json:
        figures = asdict(found)
        print_json({"model": model, "perplexity": figures.pop("value"), **figures})
    else:
        click.echo(f"{found.value:.4f} ± {found.error:.4f}")
        say(f"{found.n_tokens} tokens scored in {number(found.n_chunks, 'chunk')} of {found.n_ctx}")


@command.command("kld")
@click.argument("model")
@click.option("--base", "base_path", type=FILE, metavar="FILE", help="Compare with this recorded base.")
@click.option("--save-base", "save_path", type=OUT, metavar="FILE", help="Record MODEL as a base.")
@click.option("--text", "text_path", type=FILE, metavar="FILE", help="The text to record; a base has its own.")
@ctx_option
@chunks_option
@_options.threads
@force_option
@_options.as_json
def kld_command(
    model: str,
    base_path: Path | None,
    save_path: Path | None,
    text_path: Path | None,
    ctx: int,
    chunks: int | None,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print how far MODEL's predictions are from another model's.

    First record the better model, say the F16 file: --save-base FILE --text TEXT (two bytes for each token scored and
    each token of the vocabulary). Then compare others with it: --base FILE. Prints the Kullback-Leibler divergence,
    how often both hold the same token most likely, and the ratio of perplexities. Bases are those of llama.cpp's
    llama-perplexity.
    """
    if (base_path is None) == (save_path is None):
        raise click.UsageError("give --base FILE to compare with, or --save-base FILE to record one")
    if save_path is not None:
        if text_path is None:
            raise click.UsageError("--save-base needs --text FILE")
        _record(model, save_path, text_path, ctx, chunks, threads or 0, force, as_json)
        return
    if text_path is not None:
        raise click.UsageError("a base has its own text: leave out --text")
    from edgellm.evaluation.base import Base
    from edgellm.evaluation.chunks import Reader
    from edgellm.evaluation.divergence import divergence

    assert base_path is not None
    with (
        Base(base_path) as base,
        Reader(_model.locate(model), base.n_ctx, threads or 0) as reader,
        counted("chunks") as report,
    ):
        found = divergence(reader, base, report=report)
    if as_json:
        print_json({"model": model, "base": str(base_path), **asdict(found)})
    else:
        _tell(found)


def _record(
    model: str, out: Path, text_path: Path, ctx: int, chunks: int | None, threads: int, force: bool, as_json: bool
) -> None:
    from edgellm.evaluation.base import BaseWriter, file_bytes
    from edgellm.evaluation.chunks import Reader, read_text
    from edgellm.evaluation.perplexity import perplexity
    from edgellm.tools.outputs import Outputs

    text = read_text(text_path)
    with Reader(_model.locate(model), ctx, threads) as reader:
        parts = reader.chunks(text, chunks)
        n_bytes = file_bytes(ctx, reader.n_vocab, len(parts))
        with Outputs([out], n_bytes, force=force) as outputs, outputs.open() as file, counted("chunks") as report:
            found = perplexity(reader, parts, base=BaseWriter(file, reader.n_vocab, parts), report=report)
    if as_json:
        print_json({"model": model, "path": str(out), "n_bytes": n_bytes, "perplexity": found.value})
    else:
        say(f"{out}: {found.n_tokens} tokens, {n_bytes / 1e6:.0f} MB; perplexity {found.value:.4f}")


def _tell(found: Divergence) -> None:
    rows = [
        ["mean divergence", f"{found.mean:.6f} ± {found.error:.6f}"],
        ["largest", f"{found.largest:.6f}"],
        *[[f"{name} %", f"{value:.6f}"] for name, value in found.percentiles.items()],
        ["same most likely token", f"{100 * found.same_top:.2f} ± {100 * found.same_top_error:.2f} %"],
        ["perplexity", f"{found.value:.4f}, base {found.base_value:.4f}"],
        ["ratio of perplexities", f"{found.ratio:.5f} ± {found.ratio_error:.5f}"],
        ["change of probability, RMS", f"{100 * found.rms:.3f} %"],
    ]
    click.echo(table(rows))
    scored = f"{found.n_tokens} tokens scored in {number(found.n_chunks, 'chunk')} of {found.n_ctx}"
    say(f"{scored}; divergences in nats")
