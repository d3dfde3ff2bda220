"""The options of the commands that give an order, once for all of them.

Also the words of options that other commands share with them (`proxy.cli.options`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from proxy.cli.examples import plain

ADMIN_HELP = "The admin URL; else UNDERSTUDY_ADMIN, else what the current folder says."
STATE_DIR_HELP = "Use this state directory itself, without the admin API."
JSON_HELP = "Print JSON for programs."
ROUTE_HELP = "Only this route."
CANDIDATE_HELP = "Only this candidate of the route."


def order_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every order has."""
    parser = argparse.ArgumentParser(
        prog=f"understudy {name}",
        description=description,
        epilog=plain(name),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--admin", metavar="URL", default="", help=ADMIN_HELP)
    parser.add_argument("--state-dir", metavar="FOLDER", type=Path, help=STATE_DIR_HELP)
    parser.add_argument("--json", action="store_true", dest="as_json", help=JSON_HELP)
    return parser


def latch_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of `kill` or `revive`: with a scope, a part and a reason."""
    parser = order_parser(name, description)
    parser.add_argument(
        "--reason", metavar="TEXT", required=True, help="Why; kept in the decisions log."
    )
    parser.add_argument("--route", metavar="ROUTE", default="", help=ROUTE_HELP)
    parser.add_argument(
        "--candidate",
        metavar="CANDIDATE",
        default="",
        help=CANDIDATE_HELP,
    )
    parser.add_argument(
        "--only", choices=("mirror", "canary", "record"), default="", help="Only this part."
    )
    return parser


def reason_of(arguments: argparse.Namespace) -> str:
    """Return the reason with what is no text in it (a stray byte of another encoding) replaced."""
    return str(arguments.reason).encode("utf-8", "replace").decode()
