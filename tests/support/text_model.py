"""A small real language model: word n-grams of the prose in Python's own documentation strings.

Deterministic: the same prompt, seed and order give the same text, in every process. Two orders
give two models that often disagree, which is what a test of a comparison needs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import decimal
import fractions
import functools
import hashlib
import importlib
import io
import logging
import random
import re
import statistics
import textwrap
import typing
from collections import Counter, defaultdict
from types import ModuleType
from typing import Final

import numpy as np
import numpy.typing as npt

EMBEDDING_SIZE: Final = 64

_WORD = re.compile(r"[A-Za-z']+|[.,!?;:]")
_STOP = frozenset(".!?")
_SOURCES: Final[tuple[ModuleType, ...]] = (
    argparse, asyncio, decimal, fractions, functools, logging, statistics, textwrap, typing,
)  # fmt: skip


def tokenize(text: str) -> list[str]:
    """Return the lower-case words and marks of `text`."""
    return [word.lower() for word in _WORD.findall(text)]


def _zen() -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        importlib.import_module("this")
    return printed.getvalue()


def corpus() -> str:
    """Return the text that the model learns from."""
    prose = [_zen()]
    for module in _SOURCES:
        prose.append(module.__doc__ or "")
        members = (getattr(module, name) for name in sorted(getattr(module, "__all__", ())))
        prose += [
            doc for member in members if isinstance(doc := getattr(member, "__doc__", ""), str)
        ]
    return "\n".join(prose)


class TextModel:
    """A back-off n-gram model; `order` words of context (1 or more)."""

    def __init__(self, order: int = 2) -> None:
        self.order = order
        self._next: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        words = tokenize(corpus())
        for at, word in enumerate(words):
            for length in range(min(order, at) + 1):
                self._next[tuple(words[at - length : at])][word] += 1

    def generate(
        self, prompt: str, max_tokens: int, *, temperature: float = 1.0, seed: int = 0
    ) -> tuple[list[str], str]:
        """Return the tokens that follow `prompt` and why they end: `stop` or `length`.

        Temperature 0 always takes the most frequent word; the first in the alphabet of equals.
        """
        digest = hashlib.sha256(f"{seed}|{self.order}|{prompt}".encode()).digest()
        dice = random.Random(digest)
        context, tokens = tokenize(prompt), list[str]()
        while len(tokens) < max_tokens:
            choices = self._choices([*context, *tokens])
            word = choices[0][0] if temperature == 0 else _draw(choices, dice)
            tokens.append(word)
            if word in _STOP:
                return tokens, "stop"
        return tokens, "length"

    def _choices(self, context: list[str]) -> list[tuple[str, int]]:
        """Return the next words with their counts, the most frequent first."""
        for length in range(min(self.order, len(context)), -1, -1):
            found = self._next.get(tuple(context[len(context) - length :]))
            if found:
                return sorted(found.items(), key=lambda item: (-item[1], item[0]))
        raise AssertionError("the empty context knows every word")


def _draw(choices: list[tuple[str, int]], dice: random.Random) -> str:
    words, counts = zip(*choices, strict=True)
    return str(dice.choices(words, counts)[0])


def spaced(tokens: list[str]) -> list[str]:
    """Return the tokens as text pieces that join to a sentence."""
    return [
        word if at == 0 or not word[0].isalpha() else f" {word}" for at, word in enumerate(tokens)
    ]


def embed(text: str, size: int = EMBEDDING_SIZE) -> npt.NDArray[np.float32]:
    """Return the hashed bag of words of `text`, `(size,)` of unit length (zero if it has none)."""
    vector = np.zeros(size, dtype=np.float32)
    for word in tokenize(text):
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        value = int.from_bytes(digest, "big")
        vector[(value >> 1) % size] += 1.0 if value & 1 else -1.0
    length = float(np.linalg.norm(vector))
    return (vector / np.float32(length)).astype(np.float32) if length else vector
