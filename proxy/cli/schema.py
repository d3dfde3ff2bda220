"""`understudy schema`: the JSON Schemas, as `config/` has them, and the pair's columns elsewhere."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Literal

import typer

#: Where each schema comes from; imported only when it is asked for.
_SOURCES = {
    "config": "proxy.config.json_schema",
    "pair": "proxy.pairs.record",
    "label": "proxy.pairs.label",
    "decision": "proxy.state.decision_record",
}


def schema(
    what: Annotated[
        Literal["config", "pair", "label", "decision"],
        typer.Argument(
            help="config: the YAML file. pair: a recorded pair. label: a line of ground truth. "
            "decision: a line of the decisions log.",
            metavar="config|pair|label|decision",
        ),
    ],
    dialect: Annotated[
        Literal["clickhouse", "duckdb", "flink", "spark"] | None,
        typer.Option(
            help="Declare the pair's columns for this program instead.",
            metavar="clickhouse|duckdb|flink|spark",
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of the config, of the pair record, of a label or of a decision."""
    if dialect is not None:
        if what != "pair":
            raise typer.BadParameter(f"no columns for {what}; write `schema pair`")
        dialects = importlib.import_module("proxy.pairs.dialects")
        sys.stdout.write(dialects.statement(dialects.Dialect(dialect)))
        return
    text: bytes = importlib.import_module(_SOURCES[what]).schema_text()
    sys.stdout.write(text.decode())
