"""The words between an answer and what a protocol reads in it. Values only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """A captured answer: `body` as on the wire, `content_encoding` not yet undone."""

    content_type: str | None
    content_encoding: str | None
    body: bytes


class Extract(NamedTuple):
    """What an answer says. A tuple, because two are made for every pair.

    Attributes:
        prediction: a JSON value; None when there is none, and then `reason` says why.
        model_version: the version that the answer names.
        input_tokens: tokens of the prompt.
        output_tokens: tokens of the answer.
        finish_reason: why the model stopped.
        reason: why this answer cannot be compared, in snake_case; None when it can.
        path: where the prediction was found, such as `outputs[0].data`; empty for the whole.
    """

    prediction: Any = None
    model_version: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    reason: str | None = None
    path: str = ""


#: What a protocol knows of a document besides the prediction: model version, tokens of the prompt
#: and of the answer, finish reason; `Extract`'s fields, in its order.
Facts = tuple[str | None, int | None, int | None, str | None]

NO_FACTS: Facts = (None, None, None, None)


class Dialect(NamedTuple):
    """How one JSON protocol is read.

    Attributes:
        prediction: finds the prediction of a document when the route names no path; returns it
            with its path, or None as the prediction when there is none.
        facts: reads version, tokens and finish reason; takes any JSON value.
        assemble: turns the data of server-sent events into the document that a plain answer would
            have been, or the reason why it cannot; None when the protocol does not stream.
        unpack: turns a body that is JSON followed by raw bytes into the document that a plain answer
            would have been, or the reason why it cannot; None when the protocol has no such.
        refine: reshapes a list (found at a given path) with what else the document says.
        is_finite: the prediction holds no NaN that the JSON text did not hold.
    """

    prediction: Callable[[Any], tuple[Any, str]]
    facts: Callable[[Any], Facts] = lambda _: NO_FACTS
    assemble: Callable[[list[bytes]], tuple[Any, str | None]] | None = None
    unpack: Callable[[bytes], tuple[Any, str | None]] | None = None
    refine: Callable[[list[Any], Any, str], list[Any]] | None = None
    is_finite: bool = True


def object_of(value: Any) -> dict[str, Any]:
    """Return an object as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def objects_of(value: Any) -> list[dict[str, Any]]:
    """Return the objects in an array; none for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_or_none(value: Any) -> str | None:
    """Return a string, a number as a string, or None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return None


def count_or_none(value: Any) -> int | None:
    """Return a count that fits a signed 64-bit integer, or None for anything else."""
    if type(value) is int and 0 <= value < 2**63:
        return value
    return None
