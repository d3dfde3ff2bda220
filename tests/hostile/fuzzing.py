"""What all fuzz targets have in common: a law, seeds, and how an input is read.

An input is one byte for the size of the pieces, one for the choice of a variant, and the stream.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris

CACHE = Path(__file__).parents[2] / ".cache" / "fuzz"

#: Called with a stream, the size of the pieces it is cut into, and a number that picks a variant.
Law = Callable[[bytes, int, int], None]


def fuzz(name: str, law: Law, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    """Look for a stream that breaks the law until libFuzzer's limits are reached; never returns.

    What was found stays in `.cache/fuzz/NAME`, and the next run begins with it; a stream that breaks
    the law is written to `.cache/fuzz/NAME-crash-…`.

    Args:
        name: of the target.
        law: raises where it does not hold.
        seeds: streams to begin with.
        words: what streams are made of.
    """
    corpus = CACHE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(b"\x00\x00" + data)
    dictionary = CACHE / f"{name}.dict"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))

    def one(data: bytes) -> None:
        if len(data) > 2:
            law(data[2:], 1 + data[0] % 40, data[1])

    options = ["-max_len=1024", "-timeout=10", f"-dict={dictionary}"]
    artifacts = f"-artifact_prefix={CACHE / name}-"
    atheris.Setup([sys.argv[0], *options, artifacts, *sys.argv[1:], str(corpus)], one)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
