"""The group of commands, loaded one by one, and what becomes of errors.

Only the module of the command that runs is imported, so that `edgellm run` answers sooner; the short
descriptions stand here for the list of commands, and a test compares them with the commands' own.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from edgellm.cli import reader_left
from edgellm.errors import EdgellmError

COMMANDS = {
    "run": "Ask MODEL a question, or chat with it.",
    "pull": "Bring a model to this machine.",
    "ls": "List the models on this machine.",
    "show": "Tell what is in a model.",
    "rm": "Remove models from this machine.",
    "tokenize": "Show how MODEL cuts TEXT into tokens.",
    "embed": "Turn TEXTS into vectors.",
    "rerank": "Order texts by how well they answer QUERY.",
    "bench": "Measure how fast MODEL runs.",
    "convert": "Make a GGUF file from a Hugging Face model folder.",
    "quantize": "Make a smaller GGUF file of a model.",
    "imatrix": "Measure which columns of MODEL's weights matter.",
    "eval": "Measure how well a model predicts a text.",
    "gguf": "Look into GGUF files, and split, merge, compare and edit them.",
    "flash": "Put edgellm on a device, to run there without a network.",
    "service": "Let this machine answer questions as a system service.",
    "doctor": "Check this machine and this installation.",
    "build-wheel": "Build edgellm's wheel for another machine.",
    "targets": "List the machines that wheels can be built for.",
}


# Names that other programs have, and what does it here.
ELSEWHERE = {
    "chat": "run MODEL", "generate": "run MODEL PROMPT", "list": "ls", "info": "show", "inspect": "show",
    "remove": "rm", "delete": "rm", "download": "pull", "perplexity": "eval ppl", "serve": "service install MODEL",
}  # fmt: skip


class Commands(click.Group):
    """A group whose commands are modules beside this one, imported when used."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that *args* begin with; a name from elsewhere is told what it is here."""
        if args and args[0] in ELSEWHERE:
            ctx.fail(f"there is no command '{args[0]}' here: edgellm {ELSEWHERE[args[0]]}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command *cmd_name*, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"edgellm.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help page, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from edgellm.cli._text import version

        click.echo(f"edgellm {version()}")
        ctx.exit()


@click.group(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """Run language models from GGUF files on this machine's processor.

    Answers go to standard output, everything else to standard error. Exit codes: 0 it worked,
    1 it failed, 2 wrong usage, 130 stopped by Ctrl-C.

    Environment: EDGELLM_HOME (folder for models and chat history), EDGELLM_OFFLINE=1 (never use the
    network), EDGELLM_DEBUG=1 (show tracebacks).
    """


def run(arguments: list[str] | None) -> int:
    """Run one command and turn every failure into one line and an exit code."""
    try:
        code = cli.main(arguments, prog_name="edgellm", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        from edgellm.cli._text import remark

        with remark():
            error.show(file=sys.stderr)
        return error.exit_code
    except click.Abort as error:  # click's word for Ctrl-C, and for Ctrl-D at a question
        return 130 if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt) else 1
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last place that can make a sentence of it
        return _failed(error)


def _failed(error: Exception) -> int:
    """Say what went wrong in one line."""
    from edgellm.cli._text import as_options, remark, say

    if os.environ.get("EDGELLM_DEBUG", "0") not in ("", "0"):
        import traceback

        with remark():
            traceback.print_exc()
        return 1
    if isinstance(error, EdgellmError):
        say(as_options(str(error)) or type(error).__name__)
    elif isinstance(error, MemoryError):
        say("there is not enough memory: try a smaller --ctx or a smaller model")
    elif isinstance(error, OSError):
        file = f"{error.filename}: " if error.filename else ""
        if _met_by_stdout(error):
            reader_left()
            file = "standard output cannot be written: "
        say(f"{file}{error.strerror or error}")
    else:
        say(
            f"unexpected {type(error).__name__}: {error}; this is a fault in edgellm, please report it "
            "with what EDGELLM_DEBUG=1 shows"
        )
    return 1


def _met_by_stdout(error: OSError) -> bool:
    """Whether writing to standard output met *error*: what `say` meets it keeps."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code is not click.echo.__code__:
        at = at.tb_next
    return at is not None
