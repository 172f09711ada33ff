"""`headrace`: the commands by name, and the one place where a command's failure becomes an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from headrace.cli import backup, machine, operator, runs, schedules, serving, specs
from headrace.cli.output import Output

INTERRUPTED = 130

app = typer.Typer(
    name="headrace",
    help="From data to a served model with one YAML file.",
    epilog="Exit codes: 0 done, 1 failed, 2 the spec or usage is wrong, 3 the gate refused the model, 4 a service that "
    "is needed cannot be reached, 130 cancelled.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

for _module in (specs, runs, schedules, serving, machine, backup, operator):
    _module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


@app.callback()
def headrace(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. May also stand after the command.")] = False,
) -> None:
    """From data to a served model with one YAML file."""


def main(arguments: list[str] | None = None) -> None:
    """The entry point: run one command and exit with its code."""
    code = execute(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def execute(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    given = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in given
    words = [argument for argument in arguments if argument != "--debug"] if debug else arguments
    command = next((word for word in given if not word.startswith("-")), "")
    output = Output()
    try:
        result: Any = app(words, standalone_mode=False, obj=output, prog_name="headrace")
        if result == INTERRUPTED and not output.reported:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if "--json" in given:  # also where the command line was not understood
            output.begin_json()
        return _failed(error, command, arguments, output, debug)


def _failed(error: BaseException, command: str, arguments: list[str], output: Output, debug: bool) -> int:
    from headrace.base.errors import Cancelled
    from headrace.cli.failure import fail
    from headrace.cli.usage import as_usage_error

    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        error = Cancelled(f"headrace {command} was interrupted", action="run it again")
        return fail(error, command=command, arguments=arguments, output=output, debug=debug)
    if (usage := as_usage_error(error, [info.name or "" for info in app.registered_commands])) is not None:
        error = usage
    return fail(error, command=command, arguments=arguments, output=output, debug=debug)


if __name__ == "__main__":
    main()
