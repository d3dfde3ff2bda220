"""Fuzz the chunked coding: `python -m tests.hostile.fuzz_bodies -max_total_time=60`.

A chunked body is what a strict reader says, with the same rest, however it is cut.
"""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["proxy.wire", "tests.hostile.grammar"]):
    from tests.hostile.laws import law_of_bodies

from tests.hostile.fuzzing import fuzz
from tests.hostile.rows import extra_rows
from tests.hostile.streams import REQUEST_PARTS


def _law(data: bytes, size: int, variant: int) -> None:
    del variant
    law_of_bodies(data, size)


if __name__ == "__main__":
    rows = [row.data.partition(b"\r\n\r\n") for row in extra_rows("request")]
    fuzz("bodies", _law, [body for head, _, body in rows if b"chunked" in head], REQUEST_PARTS)
