"""Writes many recorded pairs: `python -m benchmarks.programs.pair_files FOLDER ndjson|parquet COUNT`.

Records of the real shape, 3.6 KB each: of two models' answers with ten scores each, 4% differ, 2% have
a replicate, 0.2% of the candidate's calls fail. 20,000 distinct ones are repeated with numbers and times
of their own, so that none is a duplicate; no repetition lies within what the compressor looks back on.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from proxy.analysis.parquet import ParquetWriter, arrow_schema
from proxy.pairs.record import FIELDS, SCHEMA_VERSION

DISTINCT: Final = 20_000
PER_FILE: Final = 250_000
#: Uncompressed bytes of a frame, as the recorder writes them.
FRAME_BYTES: Final = 1 << 20
START_MS: Final = 1_700_000_000_000
_GROUP_ROWS: Final = 100_000


def main(arguments: list[str]) -> None:
    """Write what the arguments say."""
    folder, form, count = Path(arguments[0]), arguments[1], int(arguments[2])
    folder.mkdir(parents=True, exist_ok=True)
    (_write_parquet if form == "parquet" else _write_ndjson)(folder, count)


def record(number: int, made: random.Random) -> dict[str, Any]:
    """Return one pair, made up by `made`."""
    label = made.randrange(10)
    other = label if made.random() < 0.96 else (label + 1) % 10
    has_failed, has_replicate = made.random() < 0.002, made.random() < 0.02
    values: dict[str, Any] = {field.name: None for field in FIELDS} | {
        "schema_version": SCHEMA_VERSION,
        "pair_id": f"018bcfe5-6be8-771c-9194-{made.getrandbits(48):012x}",
        "request_id": f"{made.getrandbits(128):032x}",
        "trace_id": f"{made.getrandbits(128):032x}",
        "span_id": f"{made.getrandbits(64):016x}",
        "trace_sampled": False,
        "ts": "2023-11-14T22:13:21.000000Z", "ts_ms": START_MS + number,
        "experiment_id": "digits", "route": "digits", "candidate": "v2", "proxy_version": "0.1.0",
        "instance": "gateway-a-w0-1a2b3c4d", "seq": number, "config_version": "0123456789abcdef",
        "mode": "shadow", "served_by": "primary", "rescued": False, "ramp_step": 0,
        "ramp_weight_bp": 0, "assign_prob": 1.0, "sample_prob": 1.0, "sample_weight": 1.0,
        "unit_hash": f"{made.getrandbits(64):016x}", "segments": {}, "method": "POST",
        "path": "/v2/models/digits/infer", "protocol": "open-inference",
        "content_type": "application/json", "request_bytes": 812,
        "request_sha256": f"{made.getrandbits(256):064x}",
        "comparator": "label", "comparable": not has_failed,
        "not_comparable_reason": "candidate_failed" if has_failed else None,
        "equal": None if has_failed else label == other,
        "replicate_equal": True if has_replicate else None,
        "loss_diff": None if has_failed else float(label != other),
        "first_diff_path": None if has_failed or label == other else "[0]",
    }  # fmt: skip
    sides = [("primary", "3", label), ("candidate", "4", other)]
    for side, version, answer in [*sides, *([("replicate", "3", label)] if has_replicate else [])]:
        values |= _leg(side, version, answer, made)
    if has_failed:
        values |= _failed()
    return values


def _leg(side: str, version: str, label: int, made: random.Random) -> dict[str, Any]:
    scores = [made.random() for _ in range(10)]
    body = orjson.dumps({"model_version": version, "label": label, "scores": scores}).decode()
    found = {
        "backend": f"digits-{version}", "model_version": version, "status": "ok",
        "http_status": 200, "dispatch_delay_ms": round(made.random(), 3),
        "ttfb_ms": round(made.uniform(1, 4), 3), "latency_ms": round(made.lognormvariate(1.5, 0.5), 3),
        "response_bytes": len(body), "response_sha256": f"{made.getrandbits(256):064x}",
        "content_type": "application/json", "body": body, "body_encoding": "utf-8",
        "body_state": "full", "prediction": [label], "chunks": 1, "stream_complete": True,
    }  # fmt: skip
    return {f"{side}_{name}": value for name, value in found.items()}


def _failed() -> dict[str, Any]:
    gone = ("model_version", "http_status", "response_sha256", "body", "prediction")
    return {f"candidate_{name}": None for name in gone} | {
        "candidate_status": "timeout",
        "candidate_error": "first_byte_timeout",
        "candidate_body_state": "omitted",
    }


def _records(count: int) -> Iterator[dict[str, Any]]:
    made = random.Random(1)
    return (record(number, made) for number in range(1, count + 1))


def _write_ndjson(folder: Path, count: int) -> None:
    templates = []
    for each in _records(min(count, DISTINCT)):
        text = orjson.dumps(each | {"seq": 111_222_333, "ts_ms": 444_555_666})
        head, rest = text.split(b"444555666")
        middle, tail = rest.split(b"111222333")
        templates.append((head, middle, tail + b"\n"))
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
    for first in range(0, count, PER_FILE):
        with (folder / f"pairs-{first // PER_FILE:04}.ndjson.zst").open("wb") as file:
            frame, size = [], 0
            for number in range(first, min(first + PER_FILE, count)):
                head, middle, tail = templates[number % len(templates)]
                frame.append(b"%b%d%b%d%b" % (head, START_MS + number, middle, number + 1, tail))
                size += len(frame[-1])
                if size >= FRAME_BYTES:
                    file.write(compressor.compress(b"".join(frame)))
                    frame, size = [], 0
            file.write(compressor.compress(b"".join(frame)))


def _write_parquet(folder: Path, count: int) -> None:
    distinct = min(count, DISTINCT)
    part = folder / "distinct.part"
    with part.open("wb") as stream:
        writer = ParquetWriter(stream, FIELDS)
        batch: list[dict[str, Any]] = []
        for each in _records(distinct):
            batch.append(each)
            if len(batch) == 1_000:
                writer.write(batch)
                batch = []
        writer.write(batch)
        writer.close()
    table = pq.read_table(part, schema=arrow_schema())
    part.unlink()
    group = pa.concat_tables([table] * max(min(_GROUP_ROWS, count) // distinct, 1))
    for first in range(0, count, PER_FILE):
        rows = min(PER_FILE, count - first)
        path = folder / f"pairs-{first // PER_FILE:04}.parquet"
        with pq.ParquetWriter(path, arrow_schema(), compression="zstd") as out:
            for start in range(first, first + rows, group.num_rows):
                taken = group.slice(0, min(group.num_rows, first + rows - start))
                seqs = pa.array(range(start + 1, start + taken.num_rows + 1), pa.int64())
                times = pa.array(range(START_MS + start, START_MS + start + len(seqs)), pa.int64())
                for name, column in (("seq", seqs), ("ts_ms", times)):
                    place = arrow_schema().get_field_index(name)
                    taken = taken.set_column(place, arrow_schema().field(name), column)
                out.write_table(taken, row_group_size=_GROUP_ROWS)


if __name__ == "__main__":
    main(sys.argv[1:])
