"""Texts: equal but for spelling that does not count, or alike enough by edits.

Both are normalised first: Unicode NFC (not NFKC, for which x² is x2), runs of white space as one
space, none at the ends, and with `ignore_case` folded. How alike they are is 1 less the edits
(insertions, deletions, substitutions; Levenshtein) over the longer length, in characters; in words
for long texts, since the work grows with the product of the lengths. Where they first differ is told
as the number of the word, from 0.
"""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Final

from proxy.comparison.result import Comparison, agrees, differs, not_comparable

NOT_A_TEXT: Final = "not_a_text"
#: Texts up to so many characters are compared by characters, which takes some 20 ms at most. Of longer
#: ones that are less alike than they must be it is not computed by how much.
_BY_CHARACTERS: Final = 16_384

Similarity = Callable[..., float]


class TextComparator:
    """Compares texts, which agree when they are alike by at least `min_similarity`.

    `abs_diff` is 1 less the similarity.
    """

    def __init__(self, *, min_similarity: float, ignore_case: bool) -> None:
        self._least = min_similarity
        self._ignore_case = ignore_case
        # Here, because recorders of other routes need not spend its memory.
        distance = importlib.import_module("rapidfuzz.distance")
        self._similarity: Similarity = distance.Levenshtein.normalized_similarity

    def __call__(self, primary: Any, candidate: Any, root: str) -> Comparison:
        """Return how alike two texts are; a candidate that answers anything else differs."""
        if type(primary) is not str:
            return not_comparable(NOT_A_TEXT)
        if type(candidate) is not str:
            return differs(root)
        if primary == candidate:
            return agrees(0.0)
        left, right = self._normalised(primary), self._normalised(candidate)
        if left == right:
            return agrees(0.0)
        words, other_words = left.split(" "), right.split(" ")
        if max(len(left), len(right)) <= _BY_CHARACTERS:
            similarity = self._similarity(left, right)
            distance: float | None = 1.0 - similarity
        else:
            similarity = self._similarity(words, other_words, score_cutoff=self._least)
            distance = 1.0 - similarity if similarity else None
        if similarity >= self._least:
            return agrees(distance)
        return differs(f"{root}[{first_other_word(words, other_words)}]", distance)

    def _normalised(self, text: str) -> str:
        found = " ".join(unicodedata.normalize("NFC", text).split())
        return found.casefold() if self._ignore_case else found


def first_other_word(words: Sequence[str], others: Sequence[str]) -> int:
    """Return the number of the first word that differs, the length of the shorter at most."""
    pairs = enumerate(zip_longest(words, others))
    return next((number for number, (word, other) in pairs if word != other), len(words))
