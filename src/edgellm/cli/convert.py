"""``edgellm convert``: make a GGUF file from a Hugging Face model folder."""

from __future__ import annotations

from pathlib import Path

import click

from edgellm.cli import _options
from edgellm.cli._text import number, print_json, say
from edgellm.cli._work import progress
from edgellm.store.names import megabytes


@click.command("convert")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file.  [default: DIR-TYPE.gguf here]"
)
@click.option(
    "--type",
    "type_name",
    type=click.Choice(["auto", "f32", "f16", "bf16", "q8_0"]),
    default="auto",
    help="Of the matrices; auto: as the folder has them.",
)
@click.option("--pre", metavar="NAME", help="Pre-tokenizer, if it is not recognised: llama-bpe, qwen2 ...")
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@_options.as_json
def command(folder: Path, out: Path | None, type_name: str, pre: str | None, force: bool, as_json: bool) -> None:
    """Make a GGUF file from a Hugging Face model folder.

    DIR has config.json, the tokenizer's files and *.safetensors. Families: llama and SmolLM, mistral, qwen2, qwen3,
    gemma 1 to 3, phi3, smollm3, and bert (MiniLM, bge). Needs 'edgellm[tools]'.
    """
    from edgellm.tools.convert import convert

    with progress() as report:
        made = convert(folder, out, type_name, pre=pre, force=force, report=report)
    for warning in made.warnings:
        say(warning)
    if as_json:
        print_json({**vars(made), "path": str(made.path)})
    else:
        say(
            f"{made.path}: {made.architecture}, {made.type}, {number(made.n_tensors, 'tensor')}, "
            f"{megabytes(made.n_bytes)}; tokenizer {made.tokenizer}"
        )
