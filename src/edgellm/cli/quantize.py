"""``edgellm quantize``: make a smaller GGUF file of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgellm.cli import _options
from edgellm.cli._text import print_json, say, table
from edgellm.cli._work import counted, progress
from edgellm.cli.gguf import OUT, force_option, size
from edgellm.store.names import megabytes

if TYPE_CHECKING:
    from edgellm.tools.quantization.imatrix import Imatrix
    from edgellm.tools.quantization.quantize import Plan, Wishes
    from edgellm.tools.quantization.source import Source

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _list_types(here: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    if name is None or name.lower() != "help" or here.resilient_parsing:
        return name
    from edgellm.tools.quantization.file_types import FILE_TYPES

    click.echo("\n".join(FILE_TYPES))
    raise click.exceptions.Exit(0)


@click.command("quantize")
@click.argument("source", metavar="IN", type=_options.ModelFile())
@click.argument("out", metavar="OUT", type=OUT)
@click.argument("type_name", metavar="[TYPE]", required=False, callback=_list_types, is_eager=True)
@click.option(
    "--imatrix", "imatrix_path", type=FILE, metavar="FILE", help="Importance of the columns (edgellm imatrix)."
)
@click.option("--target-size", metavar="SIZE", help="Choose types so that the file is at most this large: 900M, 2G.")
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    metavar="REGEX=TYPE",
    help="This type for tensors whose name matches; may be repeated, the first that matches counts.",
)
@click.option("--output-tensor-type", metavar="TYPE", help="For the head, output.weight.")
@click.option("--token-embedding-type", metavar="TYPE", help="For the token embeddings.")
@click.option("--pure", is_flag=True, help="No mixture: every matrix gets TYPE, where its rows fit.")
@click.option("--allow-requantize", is_flag=True, help="Take tensors that are quantized already, with their losses.")
@click.option("--dry-run", is_flag=True, help="Only tell what would become of each tensor.")
@_options.threads
@force_option
@_options.as_json
def command(
    source: Path,
    out: Path,
    type_name: str | None,
    imatrix_path: Path | None,
    target_size: str | None,
    tensor_types: tuple[str, ...],
    output_tensor_type: str | None,
    token_embedding_type: str | None,
    pure: bool,
    allow_requantize: bool,
    dry_run: bool,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make a smaller GGUF file of a model.

    IN is a GGUF file of F16, BF16 or F32, or a name from 'edgellm ls'; the first part stands for a split one. TYPE
    is Q4_K_M, Q8_0, IQ4_XS ...: 'edgellm quantize IN OUT help' lists them. With --target-size the types of the tensors
    are chosen by what each loses.
    """
    from edgellm.tools.outputs import Outputs
    from edgellm.tools.quantization import imatrix as matrices
    from edgellm.tools.quantization.quantize import Wishes, write
    from edgellm.tools.quantization.source import Source

    if (type_name is None) == (target_size is None):
        raise click.UsageError("say what to make: TYPE, as in Q4_K_M, or --target-size 900M")
    n_bytes = size(target_size) if target_size is not None else None
    wishes = Wishes(
        [_pair(text) for text in tensor_types], output_tensor_type, token_embedding_type, pure, allow_requantize
    )
    if not dry_run:
        Outputs([out], 0, force=force)  # what would be refused after minutes of measuring is refused now
    imatrix = matrices.read(imatrix_path) if imatrix_path is not None else None
    with Source(source) as opened:
        made = _plan(opened, type_name, n_bytes, wishes, imatrix, _threads(threads))
        for warning in made.warnings:
            say(warning)
        if not dry_run:
            with progress() as report:
                write(
                    opened, made, out, imatrix=imatrix, imatrix_name=imatrix_path.name if imatrix_path else "",
                    threads=_threads(threads), force=force, report=report,
                )  # fmt: skip
    _tell(made, out, dry_run, as_json)


def _pair(text: str) -> tuple[str, str]:
    pattern, sign, kind = text.rpartition("=")
    if not sign or not pattern:
        raise click.UsageError(f"--tensor-type takes REGEX=TYPE, as in 'ffn_down=Q6_K', not '{text}'")
    return pattern, kind


def _threads(given: int | None) -> int:
    from edgellm import _native

    return given or int(_native.system_info()["threads"])


def _plan(
    source: Source, name: str | None, n_bytes: int | None, wishes: Wishes, imatrix: Imatrix | None, threads: int
) -> Plan:
    from edgellm.tools.quantization import budget, quantize

    if n_bytes is None:
        assert name is not None
        return quantize.plan(source, name, wishes, imatrix)
    fixed = quantize.wanted_types(source, wishes)
    with counted("tensors") as report:
        chosen = budget.types_for_size(source, n_bytes, fixed, imatrix, threads=threads, report=report)
    return quantize.plan_types(source, chosen, wishes, imatrix)


def _tell(made: Plan, out: Path, dry_run: bool, as_json: bool) -> None:
    counts: dict[str, int] = {}
    for tensor in made.tensors:
        counts[tensor.new_type] = counts.get(tensor.new_type, 0) + tensor.new_bytes
    mix = ", ".join(f"{kind} {megabytes(n)}" for kind, n in sorted(counts.items(), key=lambda pair: -pair[1]))
    if as_json:
        tensors: list[dict[str, Any]] = [
            {"name": t.name, "shape": list(t.shape), "type": t.type, "new_type": t.new_type, "new_bytes": t.new_bytes}
            for t in made.tensors
        ]
        print_json(
            {
                "path": None if dry_run else str(out), "file_type": made.file_type.name, "n_bytes": made.n_bytes,
                "new_bytes": made.new_bytes, "warnings": made.warnings, "tensors": tensors,
            }
        )  # fmt: skip
        return
    if dry_run:
        rows = [[t.name, " x ".join(map(str, t.shape)), t.type, t.new_type, str(t.new_bytes)] for t in made.tensors]
        click.echo(table([["NAME", "SHAPE", "TYPE", "BECOMES", "BYTES"], *rows], right={4}))
    verb = "would have" if dry_run else "has"
    say(f"{out} {verb} {megabytes(made.new_bytes)} of weights, was {megabytes(made.n_bytes)}: {mix}")
