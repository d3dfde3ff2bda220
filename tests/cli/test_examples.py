"""What `--help` says to type works: every command has examples, and its parser takes them."""

from __future__ import annotations

import importlib
import shlex
from typing import Any

import pytest
import typer.main

from proxy.cli.app import COMMANDS, LazyCommands, app
from proxy.cli.entry import ORDERS, run
from proxy.cli.examples import EXAMPLES

GROUPS = ("ramp", "pairs", "labels", "topics")


def _group() -> LazyCommands:
    found = typer.main.get_command(app)
    assert isinstance(found, LazyCommands)
    return found


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that words mean, and what is left for it."""
    group = _group()
    context = group.make_context("understudy", [words[0]], resilient_parsing=True)
    _, command, rest = group.resolve_command(context, words)
    if words[0] in GROUPS:
        return command.commands[rest[0]], rest[1:]
    return command, rest


def _names() -> set[str]:
    """Return every command and subcommand there is."""
    found = {"", *COMMANDS}
    for name in GROUPS:
        group = typer.main.get_command(getattr(importlib.import_module(f"proxy.cli.{name}"), name))
        found |= {f"{name} {word}" for word in getattr(group, "commands", {})}
    return found


def test_every_command_has_examples() -> None:
    """And there are none of a command that is gone."""
    assert EXAMPLES.keys() == _names()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_parser_takes_each_example(name: str) -> None:
    """Each begins with the command that it is an example of, or with what leads to it."""
    lines = [line for _, line in EXAMPLES[name]]
    assert any(f"understudy {name}".strip() in line for line in lines)
    for line in lines:
        for part in line.partition(" > ")[0].split(" && "):
            program, *words = shlex.split(part)
            assert program == "understudy"
            command, rest = _command(words)
            if words[0] in ORDERS:
                importlib.import_module(f"proxy.cli.{words[0]}").PARSER.parse_args(rest)
            else:
                command.make_context(words[0], rest)


@pytest.mark.parametrize("words", [[], ["status"], ["ramp"], ["ramp", "start"], ["kill"]])
def test_help_shows_them(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One a line, whole, on a terminal of 100 columns."""
    assert run([*words, "--help"]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for _, line in EXAMPLES[" ".join(words)]:
        assert line in shown


def test_no_example_is_taken_for_markup() -> None:
    """Rich would swallow what stands in brackets."""
    assert not [
        line for lines in EXAMPLES.values() for pair in lines for line in pair if "[" in line
    ]
