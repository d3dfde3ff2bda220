"""Checks that a benchmark measured what it claims."""

from __future__ import annotations

from benchmarks.peers import Mode
from benchmarks.peers.understudy import count_pairs
from benchmarks.stage import Stage


def recording_faults(stage: Stage) -> list[str]:
    """Return a fault for each recording target whose log lacks pairs of mirrored requests.

    The log is read from disk, record by record: what the measured CPU time is said to include.
    """
    faults = []
    for target in stage.targets:
        if target.pairs is None or target.mode is not Mode.MIRROR:
            continue
        mirrored, recorded = stage.mirrored.get(target.url, 0), count_pairs(target.pairs)
        if recorded < mirrored:
            faults.append(f"{target.peer} recorded {recorded} pairs of {mirrored} mirrored")
    return faults
