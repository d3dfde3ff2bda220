"""Rules of redaction as one tree, so that a single walk through a document serves them all.

A rule for an answer of a language model holds for the stream of it, too: who redacts
`choices[*].message.content` means the same words in `choices[*].delta.content`, and would find out
only from the log. What takes the place of a value is `redact`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from proxy.config.resolved import Protocol, RedactAction, RedactRule
from proxy.pairs import paths

Step = str | int | paths.Wildcard

#: The strictest first: of several rules for one value, that is the one which holds.
STRICTEST: Final = (RedactAction.DROP, RedactAction.MASK, RedactAction.HASH)

#: Protocols whose answers may be streams of OpenAI's events.
_CHATTY: Final = frozenset({Protocol.OPENAI, Protocol.MLFLOW})
#: What an event of /v1/responses carries of an output by itself: as a piece, and whole.
_SPOKEN: Final = ("text", "refusal", "arguments")


@dataclass(slots=True)
class Node:
    """A level of all paths together; `action` is the strictest of the rules that end here."""

    action: RedactAction | None = None
    keys: dict[str, Node] = field(default_factory=dict)
    indices: dict[int, Node] = field(default_factory=dict)
    members: Node | None = None
    elements: Node | None = None

    def child(self, step: Step) -> Node:
        """Return the node that `step` leads to, made when it is new."""
        if isinstance(step, str):
            return self.keys.setdefault(step, Node())
        if isinstance(step, int):
            return self.indices.setdefault(step, Node())
        if step is paths.Wildcard.MEMBERS:
            self.members = self.members or Node()
            return self.members
        self.elements = self.elements or Node()
        return self.elements

    def below_key(self, key: str) -> Iterator[Node]:
        """Yield what holds for the member `key` of an object."""
        if key in self.keys:
            yield self.keys[key]
        if self.members is not None:
            yield self.members

    def below_index(self, index: int) -> Iterator[Node]:
        """Yield what holds for an element of an array."""
        if index in self.indices:
            yield self.indices[index]
        if self.elements is not None:
            yield self.elements


def tree(rules: Iterable[RedactRule], protocol: Protocol = Protocol.JSON) -> Node:
    """Return the rules as a tree, with what they mean in streams of the protocol.

    Raises:
        ValueError: a path is none; says which and where.
    """
    root = Node()
    for rule in rules:
        steps: tuple[Step, ...] = paths.parse(rule.path)
        for path in (steps, *(_in_streams(steps) if protocol in _CHATTY else ())):
            node = root
            for step in path:
                node = node.child(step)
            node.action = strictest(rule.action, node.action)
    return root


def strictest(*actions: RedactAction | None) -> RedactAction | None:
    """Return the strictest of some actions; None when there is none."""
    return next((action for action in STRICTEST if action in actions), None)


def _in_streams(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Yield where the events of a stream hold what `steps` names in a whole answer.

    Chat completions say `delta` for `message`. Events of /v1/responses hold the answer so far
    (`response`), one output of it (`item`), one content of that (`part`), or a piece of its words.
    """
    if steps[0] == "choices" and len(steps) > 2 and steps[2] == "message":
        yield (*steps[:2], "delta", *steps[3:])
    yield ("response", *steps)
    if steps[0] != "output":
        return
    item = steps[2:]
    yield ("item", *item)
    is_content = item[:1] == ("content",)
    if is_content:
        yield ("part", *item[2:])
    inner = item[2:] if is_content else item
    if not inner:
        yield from ((word,) for word in ("delta", *_SPOKEN))
    elif inner[0] in _SPOKEN:
        yield ("delta",)
        yield inner
