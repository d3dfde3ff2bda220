"""What the legs of a pair say, and whether they agree: hashes, predictions, the comparison. Pure.

Whether a pair may be compared at all is decided here, and why not is named for the side at fault
(`candidate_failed`, `primary_truncated`, `candidate_no_prediction`, ...): a candidate that answers
200 without a prediction must not vanish from the evidence unseen.

How a record is put together is `expand`'s.
"""

from __future__ import annotations

import hashlib
from typing import Final

import pybase64

from proxy.comparison import comparators
from proxy.comparison.result import Comparison, against_noise, not_comparable
from proxy.config.resolved import Route
from proxy.pairs import sse
from proxy.pairs.inflate import TOO_LARGE, Between, at_once, begins_like_a_bomb
from proxy.pairs.protocols.answer import Extract
from proxy.pairs.protocols.extract import Extractor
from proxy.pairs.protocols.stream import INCOMPLETE

#: Statuses of legs that nobody's backend failed: named as they are in the reason.
_UNASKED: Final = frozenset({"cancelled", "shed", "not_sent"})
_ANSWERED: Final = frozenset({"ok", "http_error"})


#: What of a leg its body's meaning depends on: text, encoding, state; status, content type,
#: content encoding, stream complete. Equal ones need to be read only once.
Body = tuple[str | None, str | None, str, str, str | None, str | None, bool | None]

BODY_FIELDS: Final = (
    "body", "body_encoding", "body_state", "status", "content_type", "content_encoding",
    "stream_complete",
)  # fmt: skip


class Reader:
    """Reads and compares the answers of one route."""

    def __init__(self, route: Route, between: Between = at_once) -> None:
        """Prepare what depends on the config alone; see `inflate` for `between`.

        Raises:
            ValueError: no such comparator, or a prediction path that is not JMESPath.
        """
        self._extract = Extractor(route.protocol, route.compare.prediction, between).read
        self._compare = comparators.build(route.compare)

    def read(self, body: Body) -> tuple[str | None, Extract]:
        """Return a body's SHA-256 (None unless all of it is there) and what it says.

        Raises:
            ValueError: the body is not in the encoding that it claims.
        """
        text, encoding, state, status, content_type, content_encoding, stream_complete = body
        # A leg that broke off kept all that came, which is not the whole body.
        is_whole = state == "full" and status in _ANSWERED
        if text is None and is_whole:
            text = ""
        if text is None:
            data = None
        else:
            data = text.encode() if encoding != "base64" else decoded(text, encoding)
        sha256 = hashlib.sha256(data).hexdigest() if is_whole and data is not None else None
        if status != "ok":
            return sha256, Extract(reason=status if status in _UNASKED else "failed")
        if data is None or state == "truncated":
            is_bomb = data and content_encoding and begins_like_a_bomb(data, content_encoding)
            return sha256, Extract(reason=TOO_LARGE if is_bomb else state)
        extract = self._extract(data, content_type, content_encoding)
        if stream_complete is False:
            extract = extract._replace(reason=INCOMPLETE)
        if state == "redacted" and extract.reason is not None:
            extract = extract._replace(reason=state)
        return sha256, extract

    def read_tail(self, tail: str) -> Extract:
        """Return what the end of an event stream says whose middle is lost: never a prediction."""
        return self._extract(tail.encode(), sse.MEDIA_TYPE, None)._replace(prediction=None)

    def judge(self, primary: Extract, candidate: Extract) -> Comparison:
        """Return how the candidate's answer differs from the primary's."""
        return self._judge(primary, candidate, "candidate")

    def judge_with_noise(
        self, primary: Extract, candidate: Extract, replicate: Extract
    ) -> tuple[Comparison, bool | None]:
        """Return `judge` less the primary's own noise, and whether the primary agrees with itself."""
        noise = self._judge(primary, replicate, "replicate")
        return against_noise(self.judge(primary, candidate), noise), noise.equal

    def _judge(self, primary: Extract, other: Extract, side: str) -> Comparison:
        if primary.reason is not None:
            return not_comparable(f"primary_{primary.reason}")
        if other.reason is not None:
            return not_comparable(f"{side}_{other.reason}")
        return self._compare(primary.prediction, other.prediction, primary.path)


def decoded(text: str, encoding: str | None) -> bytes:
    """Return the bytes of a journaled body.

    Raises:
        ValueError: `encoding` is base64 and `text` is not.
    """
    return pybase64.b64decode(text, validate=True) if encoding == "base64" else text.encode()
