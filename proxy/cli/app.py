"""The command line's frame: names, help lines, `--version`.

A command's module is imported only when that command runs, so `understudy status` does not wait for
what `understudy compare` needs. A module `proxy.cli.NAME` has a function called NAME that typer can
read, or, for a command with subcommands, a `typer.Typer` of that name. Orders (`kill` and the like)
are listed here and run by `proxy.cli.entry`.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from proxy import __version__
from proxy.cli.entry import ORDERS
from proxy.cli.examples import as_markup
from proxy.cli.order_as_typer import as_function

#: Every command in the order of `--help`, in panels, with the line that says what it is for.
PANELS = {
    "Begin": {
        "demo": "Show all of it on this machine, in under a minute, with real models and traffic.",
        "init": "Write a commented config to start from.",
        "check": "Check a config and say what it does, or everything that is wrong with it.",
        "explain": "Say which route takes a request, who serves it, who gets a copy, and why.",
        "doctor": "Look whether machine, backends and Kafka will carry a config.",
        "topics": "Make the Kafka topics that Understudy writes to.",
        "schema": "Print the JSON Schema of the config, of the pair record or of a label.",
    },
    "Run": {
        "serve": "Run the proxy.",
        "status": "Show what runs, where traffic goes, and whether the books balance.",
        "decisions": "Show who decided what, why, from what to what; and what was refused.",
        "reload": "Read the config file again; say what changed, or why it was refused.",
    },
    "Move traffic": {
        "weight": "Set the share of live traffic that a candidate serves.",
        "ramp": "Move traffic to a candidate step by step, through gates, and back by itself.",
        "kill": "Send everything (or a route, or a candidate) back to the primary, now.",
        "revive": "Open a kill again.",
    },
    "Learn from what was recorded": {
        "pairs": "Show the newest recorded pairs, or one of them, or write them to a file.",
        "compare": "Compare the answers of primary and candidates in recorded pairs.",
        "verdict": "Say whether a candidate may be promoted, with the evidence and an exit code.",
        "plan": "Say how many pairs, and how long, until the evidence decides.",
        "labels": "Bring in ground truth: what the right answer to a request was.",
        "replay": "Send recorded requests to any backend, and compare with the recorded answers.",
    },
}
COMMANDS = {name: line for panel in PANELS.values() for name, line in panel.items()}


def main(arguments: list[str]) -> None:
    """Run one command; how it ends is an exception."""
    typer.main.get_command(app).main(arguments, prog_name="understudy")


class LazyCommands(typer.core.TyperGroup):
    """A command group that lists its commands from `PANELS` and imports only the one it runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stand-in with the name and help of a command, which is all a listing needs."""
        if cmd_name not in COMMANDS:
            return None
        command = _as_command(cmd_name, lambda: None)
        command.rich_help_panel = next(name for name, each in PANELS.items() if cmd_name in each)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command itself: typer asks this way when it is about to run it."""
        name = args[0]
        if name in COMMANDS:
            return name, _load(name), args[1:]
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `understudy --help`"
        return ctx.fail(f"There is no command {name!r}; {hint}")


def _load(name: str) -> Any:
    if name in ORDERS:
        module = importlib.import_module(f"proxy.cli.{name}")
        return _as_command(name, as_function(module.PARSER, module.run))
    found = getattr(importlib.import_module(f"proxy.cli.{name}"), name)
    is_group = isinstance(found, typer.Typer)
    command = typer.main.get_command(found) if is_group else _as_command(name, found)
    command.epilog = as_markup(name)
    for word, each in getattr(command, "commands", {}).items():
        each.epilog = as_markup(f"{name} {word}")
    return command


def _as_command(name: str, function: Any) -> Any:
    single = typer.Typer(add_completion=False)
    help_text = None if function.__doc__ else COMMANDS[name]
    single.command(name, help=help_text)(function)
    return typer.main.get_command(single)


def _print_version(*, is_wanted: bool) -> None:
    if is_wanted:
        print(f"understudy {__version__} (Python {sys.version.split()[0]})")
        raise typer.Exit


app = typer.Typer(
    cls=LazyCommands, pretty_exceptions_enable=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]}, epilog=as_markup(""),
)  # fmt: skip


@app.callback()
def understudy(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            is_eager=True,
            callback=lambda value: _print_version(is_wanted=value),
        ),
    ] = False,
) -> None:
    """Shadow and canary proxy for model inference: mirror, pair, log, compare, shift, kill."""
