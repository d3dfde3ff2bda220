"""What a replica does where its control page and what all have agreed on differ. Pure.

Anybody may change the page of a replica: the admin API, a command beside a control that is dead, a
kill file. So it is compared with the *base*: what the page was when both last agreed. What has
changed on the page since is for the others, what they have changed since is for the page, and where
both have:

- a kill wins over a revive that has not seen it, wherever either was given;
- of two weights the lower one wins.

A replica that has no base has just joined: its weights are the others', its kills are told to them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KillBase:
    """A scope as it was when page and replicas last agreed.

    Attributes:
        parts: bits of `Part`.
        note: beside the latch; another one is another kill, also of what is killed already.
        revision: of the message that said so.
    """

    parts: int = 0
    note: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class WeightBase:
    """A candidate's weight when page and replicas last agreed."""

    weight_bp: int
    revision: int


@dataclass(frozen=True, slots=True)
class KillPlan:
    """What is to be done about a scope; nothing where page and replicas agree.

    Attributes:
        page: the parts to put on the page; None: it has them.
        publish: the parts to tell; None: they are known.
        adds: whether they are told as a kill; else as a revive.
    """

    page: int | None = None
    publish: int | None = None
    adds: bool = False


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """The weight to put on the page, or to tell; both None where they agree."""

    page: int | None = None
    publish: int | None = None


def merge_kill(base: KillBase, parts: int, note: str, shared: KillBase) -> KillPlan:
    """Return what is to be done about one scope.

    Args:
        base: when both last agreed.
        parts: killed on the page.
        note: beside them on the page.
        shared: what the replicas have agreed on; its note does not matter.
    """
    is_new = bool(parts) and note != base.note
    killed_here = parts if is_new else parts & ~base.parts
    killed_there = shared.parts
    if shared.revision == base.revision:
        killed_there &= ~base.parts
    opened = (base.parts & ~parts) | (base.parts & ~shared.parts)
    target = (base.parts & ~opened) | killed_here | killed_there
    must_tell = is_new or target != shared.parts
    return KillPlan(
        page=target if target != parts else None,
        publish=target if must_tell else None,
        adds=must_tell and not shared.parts & ~target,
    )


def merge_weight(base: WeightBase | None, page_bp: int, shared: WeightBase | None) -> WeightPlan:
    """Return what is to be done about the weight of one candidate."""
    if shared is None:
        return WeightPlan(publish=page_bp)
    if page_bp == shared.weight_bp:
        return WeightPlan()
    moved_here = base is not None and page_bp != base.weight_bp
    moved_there = base is None or shared.revision != base.revision
    if moved_here and (not moved_there or page_bp < shared.weight_bp):
        return WeightPlan(publish=page_bp)
    return WeightPlan(page=shared.weight_bp)
