"""Fuzz the reading of answers: `python -m tests.hostile.fuzz_answers -max_total_time=60`.

An answer is passed on whole as a strict reader finds it, or the user is told that it is not.
"""

from __future__ import annotations

import atheris

with atheris.instrument_imports(
    include=["proxy.wire", "proxy.dataplane.upstream", "tests.hostile.grammar"]
):
    from tests.hostile.laws import law_of_answers

from tests.hostile.fuzzing import fuzz
from tests.hostile.rows import ANSWERS, extra_rows, shared_rows
from tests.hostile.streams import ANSWER_PARTS


def _law(data: bytes, size: int, variant: int) -> None:
    law_of_answers(data, size, b"HEAD" if variant % 4 == 1 else b"GET")


if __name__ == "__main__":
    fuzz(
        "answers",
        _law,
        [row.data for row in [*shared_rows(ANSWERS), *extra_rows("answer")]],
        ANSWER_PARTS,
    )
