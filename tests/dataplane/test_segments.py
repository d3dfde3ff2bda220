"""Segments on their way into the record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from proxy.config.resolved import Config, Segment, Split, SplitKind
from tests.support.dataplane import Options, dataplane
from tests.support.upstreams import Upstream, echo

SEGMENTS = (
    Segment("tier", Split(SplitKind.HEADER, "x-tier")),
    Segment("language", Split(SplitKind.JSON, "language")),
)


def with_segments(config: Config) -> Config:
    """Let every route have them."""
    return replace(config, routes=tuple(replace(r, segments=SEGMENTS) for r in config.routes))


async def test_each_pair_says_which_segments_its_request_was_of(tmp_path: Path) -> None:
    """By header and body; a request that says nothing is of none."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(adapt=with_segments),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b'{"language":"de"}', extra=b"X-Tier: gold\r\n")
        await plane.request(b"POST", b"/", body=b"plain")
        said, silent = await plane.pairs(2)
    assert said["segments"] == {"tier": "gold", "language": "de"}
    assert silent["segments"] == {}
