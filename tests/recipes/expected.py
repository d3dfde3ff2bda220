"""What the recipes must answer, worked out from the records one by one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pytest

Record = dict[str, Any]
Key = tuple[Any, ...]
Answer = dict[Key, dict[str, Any]]


def grouped(
    records: list[Record], key: Callable[[Record], Key], of: Callable[[list[Record]], Any]
) -> Answer:
    """Return `of` the records of each key."""
    groups = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return {name: of(members) for name, members in groups.items()}


def pairing(record: Record) -> Key:
    """Return what most questions group by."""
    return record["route"], record["candidate"]


def share(values: list[bool]) -> Any:
    """Return how many of them are true, as a part of all, nearly."""
    return pytest.approx(sum(values) / len(values)) if values else None


def by_hour(records: list[Record]) -> Answer:
    """How often do they differ, by route and hour?"""

    def key(record: Record) -> Key:
        hour = datetime.fromtimestamp(record["ts_ms"] // 3_600_000 * 3_600, UTC)
        return *pairing(record), hour.replace(tzinfo=None)

    def of(members: list[Record]) -> dict[str, Any]:
        compared = [record for record in members if record["comparable"]]
        return {
            "pairs": len(members), "compared": len(compared),
            "differ": share([not record["equal"] for record in compared]),
        }  # fmt: skip

    return grouped(records, key, of)


def worst(records: list[Record]) -> list[tuple[str, float]]:
    """Which differ most? The greatest differences, each with its request."""
    differing = [record for record in records if record["equal"] is False]
    differing.sort(key=lambda record: (-record["abs_diff"], record["request_id"]))
    return [(record["request_id"], record["abs_diff"]) for record in differing[:20]]


def latency(records: list[Record], method: Literal["linear", "higher"] = "linear") -> Answer:
    """How long do both take? Three quantiles of each side; `method` is numpy's word."""

    def of(members: list[Record]) -> dict[str, Any]:
        return {
            f"{side}_ms": pytest.approx(
                np.quantile(
                    [record[f"{side}_latency_ms"] for record in members],
                    [0.5, 0.95, 0.99],
                    method=method,
                )
            )
            for side in ("primary", "candidate")
        }

    both = [r for r in records if r["primary_status"] == r["candidate_status"] == "ok"]
    return grouped(both, pairing, of)


def errors(records: list[Record]) -> Counter[Key]:
    """Which errors are there, by status?"""
    names = "primary_status", "candidate_status", "candidate_http_status"
    return Counter((*pairing(r), *(r[name] for name in names)) for r in records)


def weighted(records: list[Record]) -> Answer:
    """How often do they agree, where only a part is mirrored?"""

    def of(members: list[Record]) -> dict[str, Any]:
        total = sum(record["sample_weight"] for record in members)
        equal = sum(record["sample_weight"] for record in members if record["equal"])
        return {"stands_for": pytest.approx(total), "agreement": pytest.approx(equal / total)}

    return grouped([r for r in records if r["comparable"]], pairing, of)


def noise(records: list[Record]) -> Answer:
    """How often does the primary disagree with itself?"""

    def of(members: list[Record]) -> dict[str, Any]:
        return {
            "replicated": len(members),
            "noise": share([not record["replicate_equal"] for record in members]),
            "differ": share([not record["equal"] for record in members]),
            "excess": pytest.approx(sum(r["loss_diff"] for r in members) / len(members)),
        }

    both = [r for r in records if r["replicate_equal"] is not None and r["equal"] is not None]
    return grouped(both, pairing, of)


def right(records: list[Record], labels: dict[str, Any]) -> Answer:
    """Who is right?"""

    def of(members: list[Record]) -> dict[str, Any]:
        truth = [labels[record["request_id"]] for record in members]
        return {
            "labelled": len(members),
            **{
                f"{side}_right": share(
                    [
                        r[f"{side}_prediction"] == label
                        for r, label in zip(members, truth, strict=True)
                    ]
                )
                for side in ("primary", "candidate")
            },
        }

    return grouped(
        [r for r in records if r["comparable"] and r["request_id"] in labels], pairing, of
    )
