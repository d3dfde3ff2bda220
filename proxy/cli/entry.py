"""Where every command begins: which module runs it, and how errors are shown.

A kill must take effect within 100 ms of the Enter key, and most of that is gone when typer has been
imported. So the commands that give an order go past it, to a parser of the standard library; all
others are typer's.
"""

from __future__ import annotations

import importlib

from proxy.cli.terminal import Ended, complain
from proxy.errors import ConfigError, UnderstudyError
from proxy.state.syncing import left_to_children

#: Commands that give an order: `proxy.cli.NAME` has a `PARSER` (argparse) and a function `run`.
ORDERS = ("kill", "revive", "weight")


def run(arguments: list[str]) -> int:
    """Run one command; return the exit code.

    Errors made on purpose are one line each on stderr and exit code 1; wrong usage is 2 (of `verdict`
    1). Any other
    exception is a defect of ours and shows its traceback.
    """
    try:
        if arguments and arguments[0] in ORDERS:
            command = importlib.import_module(f"proxy.cli.{arguments[0]}")
            with left_to_children():  # a disk that hangs would keep this process from ending
                return int(command.run(command.PARSER.parse_args(arguments[1:])))
        importlib.import_module("proxy.cli.app").main(arguments)
    except ConfigError as exc:
        for fault in exc.faults:
            complain(str(fault))
        return 1
    except UnderstudyError as exc:
        complain(str(exc))
        return 1
    except SystemExit as exc:  # how typer and argparse end, also when all went well
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        # Wrong usage is 2, which of a verdict means halt: a typing error must not roll back.
        is_error = arguments[:1] == ["verdict"] and not isinstance(exc, Ended)
        return min(code, 1) if is_error else code
    return 0
