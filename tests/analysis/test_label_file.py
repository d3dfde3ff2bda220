"""Files of labels as people have them, read line by line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from proxy.analysis.label_file import read_labels
from proxy.errors import SourceError
from proxy.pairs.label import MAX_LINE_BYTES

NOW_MS = 1_700_000_000_000


def read(path: Path, **changes: Any) -> list[Any]:
    """Return the label of each line, or what is wrong with it."""
    return [
        f"{e.number}: {e.fault}" if e.label is None else orjson.loads(e.label.value)["label"]
        for e in read_labels(path, now_ms=NOW_MS, **changes)
    ]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_lines_of_json_are_read_whatever_packs_them(tmp_path: Path, ending: str) -> None:
    """Blank ones are passed over, bad ones told by their number."""
    text = b'{"request_id":"a","label":1}\n\n{"request_id":"b"}\r\n{"request_id":"c","label":"x"}'
    packers: dict[str, Callable[[bytes], bytes]] = {
        "": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress,
    }  # fmt: skip
    pack = packers[ending]
    path = tmp_path / f"labels.ndjson{ending}"
    path.write_bytes(pack(text))
    assert read(path) == [1, "3: label: is missing; it is any JSON value but null", "x"]
    if ending:
        path.write_bytes(pack(text) + pack(b'\n{"request_id":"d","label":4}'))
        assert read(path)[-1] == 4
        path.write_bytes(pack(text)[:-8])
        with pytest.raises(SourceError, match="cannot read"):
            read(path)


def test_a_csv_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    """In any order, with quotes, and empty cells for what is absent."""
    path = tmp_path / "labels.csv"
    path.write_text(
        "\ufefflabel,request_id,ts,source,weight\n"
        "3,a,2023-11-14T22:13:20Z,,0.5\n"
        'cat,b,,"an expert, or two",\n'
        '"[0, 1]",c,,,\n'
        ",d,,,\n"
        "1,e,yesterday,,\n"
        "1,f,,,,7\n"
    )
    assert read(path) == [
        3, "cat", [0, 1],
        "5: label: is missing; it is any JSON value but null",
        "6: ts: must be a time such as 2026-03-01T12:00:00Z",
        "7: has more cells than the first line has names",
    ]  # fmt: skip
    assert read(path, label_type="text")[:3] == ["3", "cat", "[0, 1]"]
    assert read(path, label_type="json")[1].startswith("3: label: is not JSON")


def test_a_csv_without_its_columns_is_no_file_of_labels(tmp_path: Path) -> None:
    """Said once, not for every line."""
    path = tmp_path / "labels.txt"
    path.write_text("a,1\nb,2\n")
    with pytest.raises(SourceError, match="request_id is missing"):
        read(path, kind="csv")
    (tmp_path / "b.csv").write_bytes(b"request_id,label\n\xff,1\n")
    with pytest.raises(SourceError, match="line"):
        read(tmp_path / "b.csv")


def test_a_line_without_an_end_is_one_fault(tmp_path: Path) -> None:
    """And what follows is read."""
    path = tmp_path / "labels.ndjson"
    path.write_bytes(b"x" * (4 * MAX_LINE_BYTES) + b'\n{"request_id":"a","label":1}\n')
    assert read(path) == [f"1: is longer than {MAX_LINE_BYTES} bytes", 1]


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(SourceError, match="none: No such file"):
        read(tmp_path / "none")
