"""The command line's frame: listing, errors, and what is imported when."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from proxy import __version__
from proxy.cli.app import COMMANDS, LazyCommands, app
from proxy.cli.entry import ORDERS, run
from proxy.cli.terminal import RED, paint
from tests.support.deadline import START_PATIENCE_S

#: What a quick command must not wait for.
HEAVY = ("numpy", "aiokafka", "starlette", "sklearn", "pydantic", "yaml", "httpx", "uvicorn")


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    """So that `understudy --help` and `understudy kill` do not wait for numpy or scikit-learn."""
    script = (
        "import sys\nfrom proxy.cli.app import COMMANDS\nfrom proxy.cli.entry import run\n"
        "assert run(['--help']) == 0\n"
        f"print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
        "print('COMMANDS', [n for n in COMMANDS if 'proxy.cli.' + n in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=START_PATIENCE_S,
    ).stdout
    for name in COMMANDS:
        assert f" {name} " in output
    assert "LOADED []" in output
    assert "COMMANDS []" in output


#: What most of the time for a kill would go into, had it to wait for it. rich comes with typer.
SLOW = (*HEAVY, "typer", "rich", "http.client", "proxy.config.resolved")
#: What a kill needs only to tell what it did.
LATER = ("orjson", "dataclasses", "proxy.state.orders", "proxy.cli.ordering")


@pytest.mark.parametrize(("name", "absent"), [("kill", (*SLOW, *LATER)), ("revive", SLOW)])
def test_an_order_waits_for_nothing_that_it_does_not_need(
    name: str, absent: tuple[str, ...]
) -> None:
    """The command's module, all that it imports, and its parser."""
    script = (
        "import sys\nfrom proxy.cli.entry import run\n"
        f"assert run([{name!r}, '--nonsense']) == 2\n"
        f"print('LOADED', sorted(set({absent!r}) & set(sys.modules)))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=START_PATIENCE_S,
    ).stdout
    assert "LOADED []" in output


@pytest.mark.parametrize("name", ORDERS)
def test_typer_sees_an_orders_options_as_its_parser_does(name: str) -> None:
    """The shell's completion asks typer; the options are defined once, for argparse."""
    parser = importlib.import_module(f"proxy.cli.{name}").PARSER
    group = typer.main.get_command(app)
    assert isinstance(group, LazyCommands)
    context = group.make_context("understudy", [name], resilient_parsing=True)
    command = group.resolve_command(context, [name])[1]
    own = {word for action in parser._actions for word in action.option_strings}
    seen = {word for parameter in command.params for word in parameter.opts} | {"-h", "--help"}
    assert own == {word for word in seen if word.startswith("-")}
    assert [a.dest for a in parser._actions if a.dest != "help"] == [
        parameter.name for parameter in command.params if parameter.name != "help"
    ]


def test_an_order_behind_two_dashes_is_the_same_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That way typer runs it, from the same definition."""
    for words in (["kill"], ["--", "kill"]):
        assert run([*words, "--reason", "r", "--state-dir", str(tmp_path)]) == 1
        assert "is no state directory" in capsys.readouterr().err
        assert run([*words]) == 2
        assert run([*words, "--reason", "r", "--only", "all"]) == 2
        capsys.readouterr()


@pytest.mark.parametrize("name", ORDERS)
def test_each_order_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What it does, and every option."""
    assert run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: understudy {name} ")
    for word in ("--reason", "--admin", "--state-dir", "--json"):
        assert word in shown


@pytest.mark.parametrize("name", ["init", "check", "explain", "schema"])
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its function's docstring."""
    assert run([name, "--help"]) == 0
    function = getattr(importlib.import_module(f"proxy.cli.{name}"), name)
    shown = capsys.readouterr().out
    assert function.__doc__.split()[0] in shown
    assert "[[" not in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The distribution's version and the Python it runs on."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"understudy {__version__} (Python 3.")


def test_a_mistyped_command_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 is wrong usage."""
    assert run(["chekc"]) == 2
    assert "did you mean 'check'?" in capsys.readouterr().err
    assert run(["xyzzy"]) == 2
    assert "see `understudy --help`" in capsys.readouterr().err


def test_errors_made_on_purpose_are_a_line_each_and_no_traceback() -> None:
    """Through the real entry point: exit code 1, `error:` on stderr, no colour in a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "explain", "/nonexistent/understudy.yaml"],
        capture_output=True, text=True, check=False, timeout=START_PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: /nonexistent/understudy.yaml: there is no such file; `understudy init` writes one "
        "to start from\n"
    )


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """And NO_COLOR wins over a terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal, os.fdopen(leader):
        assert paint("bad", RED, terminal) == "\x1b[31mbad\x1b[0m"
        monkeypatch.setenv("NO_COLOR", "1")
        assert paint("bad", RED, terminal) == "bad"
    assert paint("bad", RED) == "bad"
