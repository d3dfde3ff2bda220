"""The command line's frame: listing, errors, and what is imported when."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from proxy import __version__
from proxy.cli.app import COMMANDS, run
from proxy.cli.terminal import RED, paint

#: What a quick command must not wait for.
HEAVY = ("numpy", "aiokafka", "starlette", "sklearn", "pydantic", "yaml", "httpx", "uvicorn")


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    """So that `understudy --help` and `understudy kill` do not wait for numpy or scikit-learn."""
    script = (
        "import sys\nfrom proxy.cli.app import COMMANDS, run\n"
        "assert run(['--help']) == 0\n"
        f"print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
        "print('COMMANDS', [n for n in COMMANDS if 'proxy.cli.' + n in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    for name in COMMANDS:
        assert f" {name} " in output
    assert "LOADED []" in output
    assert "COMMANDS []" in output


@pytest.mark.parametrize("name", ["init", "check", "explain", "schema"])
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its function's docstring."""
    assert run([name, "--help"]) == 0
    function = getattr(importlib.import_module(f"proxy.cli.{name}"), name)
    assert function.__doc__.split()[0] in capsys.readouterr().out


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
        capture_output=True, text=True, check=False, timeout=20,
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
