"""``edgellm imatrix``: which columns of the weights matter for a text."""

from __future__ import annotations

from pathlib import Path

import click

from edgellm.cli import _model, _options
from edgellm.cli._text import number, print_json, say
from edgellm.cli._work import counted
from edgellm.cli.gguf import OUT, force_option

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("imatrix")
@click.argument("model")
@click.option(
    "--text", "text_path", type=FILE, required=True, metavar="FILE", help="Text like what the model will see."
)
@click.option("-o", "--out", type=OUT, required=True, help="The file, for 'edgellm quantize --imatrix'.")
@click.option("--ctx", type=click.IntRange(min=8), default=512, show_default=True, help="Tokens of a chunk.")
@click.option("--chunks", type=click.IntRange(min=1), help="Read at most this many chunks.  [default: all]")
@click.option("--head", is_flag=True, help="Also of output.weight.")
@_options.threads
@force_option
@_options.as_json
def command(
    model: str,
    text_path: Path,
    out: Path,
    ctx: int,
    chunks: int | None,
    head: bool,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure which columns of MODEL's weights matter.

    MODEL reads a text, and for every matrix the mean square of each input is recorded, in the format of llama.cpp's
    llama-imatrix. Some tens of thousands of tokens are enough. Quantizing with it keeps small types usable.
    """
    from edgellm.evaluation.chunks import Reader, read_text
    from edgellm.evaluation.importance import importance
    from edgellm.tools.outputs import Outputs
    from edgellm.tools.quantization import imatrix

    Outputs([out], 0, force=force)  # what would be refused after minutes is refused now
    text = read_text(text_path)
    with Reader(_model.locate(model), ctx, threads or 0) as reader, counted("chunks") as report:
        found = importance(reader, reader.chunks(text, chunks), text_path.name, head=head, report=report)
    imatrix.write(out, found, force=force)
    if as_json:
        n_tokens = found.chunk_count * found.chunk_size
        print_json({"path": str(out), "tensors": len(found.sums), "chunks": found.chunk_count, "tokens": n_tokens})
    else:
        read = number(found.chunk_count, "chunk")
        say(f"{out}: {number(len(found.sums), 'tensor')} over {read} of {found.chunk_size} tokens")
