"""The commands that give an order as typer sees them: for listing and completion in the shell.

Their parser (argparse, quick to import) is the only definition of their options; this reads it.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer


def as_function(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]
) -> Callable[..., None]:
    """Return a function that typer reads as the command of `parser`."""
    own = [each for each in parser._actions if each.dest != "help"]  # noqa: SLF001 - no other list

    def command(**values: Any) -> None:
        # An option without a value is None for typer, and its parser's own default for us.
        given = {
            each.dest: each.default if values[each.dest] is None else values[each.dest]
            for each in own
        }
        raise typer.Exit(run(argparse.Namespace(**given)))

    parameters = [_parameter(each) for each in own]
    command.__doc__ = parser.description
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__dict__["__signature__"] = inspect.Signature(parameters)
    return command


def _parameter(action: argparse.Action) -> inspect.Parameter:
    """Return a parameter of a function that typer turns into the same option or argument."""
    kind: Any = bool if action.nargs == 0 else action.type or str
    if action.choices:
        kind = Literal[tuple(action.choices)]  # known at run time only
    default = action.default or None if kind is not bool else action.default
    words: dict[str, Any] = {
        "help": (action.help or "").replace("%%", "%"),
        "metavar": action.metavar,
    }
    told: Any = typer.Option(*action.option_strings, **words)
    if not action.option_strings:
        told = typer.Argument(**words)
    if action.required:
        default = inspect.Parameter.empty
    elif kind is not bool:
        kind = kind | None
    return inspect.Parameter(
        action.dest,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, told],
    )
