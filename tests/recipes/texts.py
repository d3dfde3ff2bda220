"""The recipes as an analyst copies them: out of the README and config/recipes, word for word."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "config" / "recipes"

_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def readme_block(language: str, word: str) -> str:
    """Return the one code block of the README in `language` in which `word` is."""
    blocks = [
        text
        for found, text in _FENCE.findall((ROOT / "README.md").read_text())
        if found == language and word in text
    ]
    assert len(blocks) == 1, (language, word, len(blocks))
    return str(blocks[0])


def questions(name: str) -> dict[str, str]:
    """Return the statements of a SQL file in config/recipes by the question above each."""
    found = {}
    for part in (RECIPES / name).read_text().split("\n\n")[1:]:
        lines = part.strip().splitlines()
        found[lines[0].removeprefix("-- ")] = "\n".join(lines[1:]).rstrip(";")
    return found
