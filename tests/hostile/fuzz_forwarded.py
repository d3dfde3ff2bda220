"""Fuzz what trusted proxies say: `python -m tests.hostile.fuzz_forwarded -max_total_time=60`.

It becomes clean lines upstream: addresses alone, and the peer as the last of them.
"""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["proxy.wire", "tests.hostile.grammar"]):
    from tests.hostile.laws import law_of_forwarded

from tests.hostile.fuzzing import fuzz
from tests.hostile.streams import FORWARDED_PARTS


def _law(data: bytes, size: int, variant: int) -> None:
    del variant
    law_of_forwarded(data, size)


if __name__ == "__main__":
    fuzz("forwarded", _law, [b"".join(FORWARDED_PARTS)], FORWARDED_PARTS)
