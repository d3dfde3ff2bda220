"""Where a request's segments are found, as it is written in the config."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from proxy.config.resolved import Split, SplitKind
from proxy.config.values import split_key

_PATTERN = {"type": "string", "pattern": "^(header|json):.+$"}


def _segment(value: Any) -> Split:
    """Return where a segment is found: a header or a place in the JSON body, as a split key is.

    A cookie or an address tells people apart, not groups of them.
    """
    kind = str(value).partition(":")[0]
    if not isinstance(value, Split) and kind not in (SplitKind.HEADER, SplitKind.JSON):
        raise ValueError(f"{value!r} is no segment; write header:NAME or json:PATH")
    return split_key(value)


SegmentSource = Annotated[Split, BeforeValidator(_segment), WithJsonSchema(_PATTERN)]
