"""Who tells the `notify` webhook of ramps over replicas: whoever leads, what nobody has told yet.

A transition's notice travels with the state that it leads to, in the same message, and is carried on by
the states after it until it was told. So whoever decides may die at once: the next leader finds in the
topic what is to be told, and tells it, the oldest first. Who has told it says so with an aside; one who
dies in between leaves a notice that comes twice. Both have the same `id`, and are equal byte for byte.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from proxy.control.ramp_entry import Entry
from proxy.control.replicas import Replicas
from proxy.control.webhooks import Webhooks
from proxy.replicas.asides import NoticesTold
from proxy.replicas.messages import Weight

logger = logging.getLogger("understudy.control")

#: The name of the notices beside a ramp's state.
FIELD: Final = "notices"
#: Notices of one ramp that wait; a webhook that is dead ends one in half a minute.
MOST_WAITING: Final = 32
#: Notices that were told and are remembered, of each ramp: more than may wait.
_MOST_TOLD: Final = 2 * MOST_WAITING


class Notices:
    """The notices of the ramps of one replica.

    Args:
        replicas: this replica among the others.
        webhooks: makes the calls.
    """

    def __init__(self, replicas: Replicas, webhooks: Webhooks) -> None:
        self._replicas = replicas
        self._webhooks = webhooks
        self._under_way: dict[str, str] = {}
        self._ended: dict[str, list[str]] = {}

    def carried(self, name: str, notice: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
        """Return the notices that a ramp's next state must carry.

        Args:
            name: `route/candidate`.
            notice: of the transition to it; None: nothing happens, or nobody wants to be told.
        """
        found = [*self._waiting(name), *([] if notice is None else [notice])]
        if len(found) > MOST_WAITING:
            logger.warning("of the ramp of %s too many notices wait; the oldest is given up", name)
        return found[-MOST_WAITING:]

    def tell(self, entry: Entry) -> None:
        """Tell the next notice of a ramp, as its leader; one at a time, so that they come in order."""
        if entry.plan.notify is None:
            return
        waiting, ended = self._waiting(entry.name), self._ended.get(entry.name, [])
        if any(each["id"] in ended for each in waiting):
            self._say(entry)  # once more, if it is not on its way: a line forgets what it loses
        due = [each for each in waiting if each["id"] not in ended]
        if due and entry.name not in self._under_way:
            self._under_way[entry.name] = due[0]["id"]
            self._webhooks.notify(entry.plan.notify, due[0], partial(self._end, entry))

    def _end(self, entry: Entry) -> None:
        """Take note that a notice was told, or given up."""
        self._ended.setdefault(entry.name, []).append(self._under_way.pop(entry.name))
        del self._ended[entry.name][:-_MOST_TOLD]
        self._say(entry)
        if self._replicas.leads:
            self.tell(entry)

    def _say(self, entry: Entry) -> None:
        told = self._replicas.asides.notices_told(entry.name)
        told += [each for each in self._ended[entry.name] if each not in told]
        origin = self._replicas.origin("", "", "")
        self._replicas.tell(
            NoticesTold(entry.route.name, entry.candidate.name, told[-_MOST_TOLD:], origin)
        )

    def _waiting(self, name: str) -> list[Mapping[str, Any]]:
        """Return what is agreed on to be told, and is not known to be told; the oldest first."""
        told = self._replicas.asides.notices_told(name)
        holds = self._replicas.shared.weights.get(name)
        return [] if holds is None else [each for each in _notices(holds) if each["id"] not in told]


def _notices(holds: Weight) -> list[Mapping[str, Any]]:
    """Return the notices beside a ramp's state; what is none is left out."""
    found = (holds.ramp or {}).get(FIELD)
    if not isinstance(found, list):
        return []  # of a replica from before there were any
    return [each for each in found if isinstance(each, dict) and isinstance(each.get("id"), str)]
