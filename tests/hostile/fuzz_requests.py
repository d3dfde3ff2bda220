"""Fuzz the reading of requests: `python -m tests.hostile.fuzz_requests -max_total_time=60`.

What goes upstream is what a strict reader finds in the stream, however that is cut.
"""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["proxy.wire", "tests.hostile.grammar"]):
    from tests.hostile.laws import law_of_heads, law_of_requests

from tests.hostile.fuzzing import fuzz
from tests.hostile.rows import REQUESTS, extra_rows, shared_rows
from tests.hostile.streams import REQUEST_PARTS


def _law(data: bytes, size: int, variant: int) -> None:
    del variant
    law_of_requests(data, size)
    law_of_heads(data, size)


if __name__ == "__main__":
    fuzz(
        "requests",
        _law,
        [row.data for row in [*shared_rows(*REQUESTS), *extra_rows("request")]],
        REQUEST_PARTS,
    )
