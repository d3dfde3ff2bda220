"""`understudy init`: a commented config to start from."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from proxy.errors import UnderstudyError


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.", metavar="CONFIG")] = Path(
        "understudy.yaml"
    ),
    *,
    template: Annotated[
        Literal["sidecar", "gateway"],
        typer.Option(help="sidecar: beside one model server. gateway: in front of many."),
    ] = "sidecar",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented config to start from; an existing file is left alone without --force."""
    source = importlib.resources.files("proxy.cli").joinpath("templates", f"{template}.yaml")
    _write(path, source.read_bytes(), is_new=not force)
    print(f"wrote {path}; edit it, then: understudy check {path}")


def _write(path: Path, data: bytes, *, is_new: bool) -> None:
    """Write the file; `is_new` refuses one that exists, also one made a moment ago.

    Raises:
        UnderstudyError: it exists, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if is_new else os.O_TRUNC)
    try:
        with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
            file.write(data)
    except FileExistsError as exc:
        raise UnderstudyError(f"{path} exists; overwrite it with --force") from exc
    except OSError as exc:
        raise UnderstudyError(f"cannot write {path}: {exc.strerror}") from exc
