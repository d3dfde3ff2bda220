"""How this instance stands among its replicas, for status, readiness and metrics. Pure.

What control wrote down last is told as long as it is fresh: a control that is dead agrees on nothing.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.control.snapshot import Snapshot

ALONE: Final = "alone"
STATES: Final = (ALONE, "joining", "connected", "cut_off")
#: As a multiple of `replicas.takeover`: control writes four times in that time.
_STALE: Final = 2


def standing(snapshot: Snapshot) -> dict[str, Any]:
    """Return the state, one of `STATES`, and what there is to know beside it."""
    group = snapshot.config.replicas
    if group is None:
        return {"state": ALONE, "why": "no `replicas:` in the config", "replicas": []}
    seen = snapshot.replicas
    age_s = (snapshot.now_ms - seen.get("updated_ms", 0)) / 1000
    if age_s > _STALE * group.takeover_s:
        trouble = "control is down, or has not looked yet"
        return {"state": "cut_off" if seen else "joining", "group": group.group, "leads": False,
                "leader": "", "trouble": trouble, "replicas": []}  # fmt: skip
    return seen


def replica_troubles(snapshot: Snapshot) -> list[str]:
    """Return what is wrong between the replicas, one sentence each."""
    found = standing(snapshot)
    if found["state"] == ALONE:
        return []
    troubles = []
    cause = f": {found['trouble']}" if found.get("trouble") else ""
    if found["state"] == "cut_off":
        troubles.append(
            f"replicas: cut off from the others{cause}; weights stay as they are and none is raised; "
            "a kill works here and is told to them later"
        )
    elif found["state"] == "joining":
        troubles.append(
            f"replicas: not joined yet{cause}; one that is new serves only the primary until then"
        )
    if found.get("has_twin"):
        troubles.append(
            f"replicas: another one calls itself {snapshot.config.instance}, too; give each an "
            "`instance` of its own"
        )
    if found.get("lead_trouble"):
        troubles.append(f"replicas: this one cannot lead: {found['lead_trouble']}")
    if found.get("page_trouble"):
        troubles.append(f"replicas: what is agreed on is not in effect: {found['page_trouble']}")
    if found.get("unread"):
        troubles.append(
            f"replicas: {found['unread']} messages could not be read; is one of another version"
        )
    return troubles + [
        f"replicas: {each['instance']} runs config {each['config_version']}, and this one "
        f"{snapshot.config.version}; ramps wait until all run the same"
        for each in found["replicas"]
        if each["lives"] and each["config_version"] != snapshot.config.version
    ]
