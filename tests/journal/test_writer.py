"""The writer puts whole frames on disk, or nothing, and counts what it could not keep."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from proxy.config.resolved import Journal
from proxy.errors import StateError
from proxy.journal.frames import MAX_CONTENT_BYTES
from proxy.journal.reader import JournalReader
from proxy.journal.segments import Position, Shipped, segment_numbers, store_shipped
from proxy.journal.writer import RETRY_S, JournalWriter
from proxy.journal.writer_statistics import JournalStatistics

GIB = 1 << 30


def lines_of(directory: Path) -> list[bytes]:
    """Return all lines of a journal that nobody else reads."""
    reader = JournalReader(directory)
    try:
        return reader.read(GIB).lines
    finally:
        reader.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where a worker's journal goes; it is not there yet."""
    return tmp_path / "journal" / "worker-0"


def test_a_flush_is_one_frame_of_ndjson_that_zstd_reads(directory: Path) -> None:
    """Lines end with a newline, and the frame carries its content size."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    writer.append(b'{"seq":1}')
    writer.append(b'{"seq":2}')
    assert (writer.buffered_pairs, writer.buffered_bytes) == (2, 18)

    result = writer.flush()

    (segment,) = directory.glob("*.zst")
    assert segment.name == "000000000001.ndjson.zst"
    assert result.pairs == 2
    assert result.bytes_written == segment.stat().st_size
    content = zstandard.ZstdDecompressor().decompress(segment.read_bytes())
    assert content == b'{"seq":1}\n{"seq":2}\n'
    assert (writer.buffered_pairs, writer.buffered_bytes) == (0, 0)
    writer.close()


def test_nothing_buffered_is_nothing_written(directory: Path) -> None:
    """An empty flush makes no file, so that an idle start leaves no trace."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    assert writer.flush().pairs == 0
    writer.close()
    assert segment_numbers(directory) == []


def test_only_the_owner_can_read_what_is_journaled(directory: Path) -> None:
    """Files 0600 and directories 0700, whatever the umask."""
    before = os.umask(0)
    try:
        writer = JournalWriter(directory, disk_budget_bytes=GIB)
        writer.append(b"{}")
        writer.close()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700


def test_a_journal_has_one_writer(directory: Path) -> None:
    """A second one is refused until the first is gone."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    with pytest.raises(StateError, match="held by another process"):
        JournalWriter(directory, disk_budget_bytes=GIB)
    writer.close()
    JournalWriter(directory, disk_budget_bytes=GIB).close()


def test_a_directory_that_cannot_be_used_loses_pairs_until_it_can(tmp_path: Path) -> None:
    """The worker serves its users meanwhile; one look a second, and the reason is told."""
    (tmp_path / "journal").touch()
    now_s = 100.0
    directory = tmp_path / "journal" / "worker-0"
    writer = JournalWriter(directory, disk_budget_bytes=GIB, clock=lambda: now_s)
    for _ in range(2):
        writer.append(b'{"seq":1}')
        with pytest.raises(OSError, match=r"cannot use the journal in .*: Not a directory"):
            writer.flush()
        assert writer.statistics().failed_pairs > 0
    writer.tick()
    (tmp_path / "journal").unlink()
    writer.append(b'{"seq":2}')
    with pytest.raises(OSError, match="cannot use"):
        writer.flush()
    now_s += RETRY_S
    writer.append(b'{"seq":3}')
    writer.close()
    assert writer.statistics().failed_pairs == 3
    assert writer.statistics().error == ""
    assert lines_of(directory) == [b'{"seq":3}']


def test_a_journal_that_somebody_else_took_meanwhile_loses_pairs(tmp_path: Path) -> None:
    """It could not be used at the start; then another process was faster."""
    (tmp_path / "journal").touch()
    now_s = 100.0
    directory = tmp_path / "journal" / "worker-0"
    writer = JournalWriter(directory, disk_budget_bytes=GIB, clock=lambda: now_s)
    (tmp_path / "journal").unlink()
    other = JournalWriter(directory, disk_budget_bytes=GIB)
    now_s += RETRY_S
    writer.append(b'{"seq":1}')
    with pytest.raises(OSError, match="held by another process"):
        writer.flush()
    other.close()
    now_s += RETRY_S
    writer.append(b'{"seq":2}')
    writer.close()
    assert lines_of(directory) == [b'{"seq":2}']


def test_a_torn_tail_is_cut_at_start_and_counted(directory: Path) -> None:
    """What a killed predecessor left half written goes; whole frames before it stay."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    writer.append(b'{"seq":1}')
    whole = writer.flush().bytes_written
    writer.append(b'{"seq":2}')
    writer.flush()
    writer.close()
    (segment,) = directory.glob("*.zst")
    os.truncate(segment, segment.stat().st_size - 3)
    torn = segment.stat().st_size - whole

    writer = JournalWriter(directory, disk_budget_bytes=GIB)

    assert writer.statistics().torn_bytes == torn
    assert segment.stat().st_size == whole
    writer.append(b'{"seq":3}')
    writer.close()
    assert lines_of(directory) == [b'{"seq":1}', b'{"seq":3}']


def test_segments_end_by_size_and_are_numbered_on(directory: Path) -> None:
    """A restart goes on with the next number."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=200))
    for _ in range(6):
        writer.append(os.urandom(100).hex().encode())
        writer.flush()
    writer.close()
    assert segment_numbers(directory) == [1, 2, 3]
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    writer.append(b"{}")
    writer.close()
    assert segment_numbers(directory) == [1, 2, 3, 4]


def test_a_number_is_never_used_twice(directory: Path) -> None:
    """Also when everything was shipped and removed: a position must not skip new pairs."""
    directory.mkdir(parents=True)
    store_shipped(directory, Shipped(Position(7, 1234)))
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    writer.append(b'{"seq":1}')
    writer.close()
    assert segment_numbers(directory) == [8]
    assert lines_of(directory) == [b'{"seq":1}']


def test_foreign_files_are_left_alone(directory: Path) -> None:
    """Neither recovered nor dropped, and empty segments do no harm."""
    directory.mkdir(parents=True)
    (directory / "notes.txt").write_bytes(b"mine")
    (directory / "1.ndjson.zst").write_bytes(b"mine")
    (directory / "000000000004.ndjson.zst").touch()
    writer = JournalWriter(directory, disk_budget_bytes=1)
    writer.append(b'{"seq":1}')
    writer.close()
    assert (directory / "notes.txt").read_bytes() == b"mine"
    assert (directory / "1.ndjson.zst").read_bytes() == b"mine"
    assert lines_of(directory) == [b'{"seq":1}']


def test_over_budget_the_oldest_segments_go_and_are_counted(directory: Path) -> None:
    """Every line that is gone is counted, also over a restart, and the newest stay."""

    def write(numbers: range) -> JournalStatistics:
        writer = JournalWriter(
            directory, disk_budget_bytes=16_000, journal=Journal(segment_bytes=2_000)
        )
        for number in numbers:
            writer.append(b'{"seq":%d,"x":"%s"}' % (number, os.urandom(50).hex().encode()))
            writer.flush()
        writer.close()
        return writer.statistics()

    write(range(200))
    statistics = write(range(200, 400))
    written = 400
    left = lines_of(directory)
    on_disk = sum(path.stat().st_size for path in directory.glob("*.zst"))
    assert on_disk <= 16_000
    assert statistics.dropped_segments > 0
    assert statistics.dropped_pairs + len(left) == written
    assert left[-1].startswith(b'{"seq":%d,' % (written - 1))


def test_what_was_shipped_is_not_counted_as_dropped(directory: Path) -> None:
    """Dropping the half that was shipped of a segment loses only the other half."""
    writer = JournalWriter(
        directory, disk_budget_bytes=16_000, journal=Journal(segment_bytes=2_000)
    )
    reader = JournalReader(directory)
    shipped = 0
    for number in range(200):
        writer.append(b'{"seq":%d,"x":"%s"}' % (number, os.urandom(50).hex().encode()))
        writer.flush()
        if number < 30:
            batch = reader.read(GIB)
            reader.commit(batch.position)
            shipped += len(batch.lines)
    writer.close()
    left = len(reader.read(GIB).lines)
    reader.close()
    assert shipped == 30
    assert shipped + writer.statistics().dropped_pairs + left == 200


def test_what_the_reader_shipped_and_did_not_remove_is_no_loss(directory: Path) -> None:
    """A recorder killed between its commit and the removal leaves segments that cost nothing."""
    writer = JournalWriter(directory, disk_budget_bytes=3_000, journal=Journal(segment_bytes=1))
    for number in range(10):
        writer.append(b'{"seq":%d,"x":"%s"}' % (number, os.urandom(50).hex().encode()))
        writer.flush()
    store_shipped(directory, Shipped(Position(8, 0)))
    for number in range(10, 30):
        writer.append(b'{"seq":%d,"x":"%s"}' % (number, os.urandom(50).hex().encode()))
        writer.flush()
    writer.close()
    left = lines_of(directory)
    assert writer.statistics().dropped_pairs + len(left) == 30 - 7


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the kernel refuse to make a file larger than `size`, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_refuses_leaves_whole_frames_only(directory: Path) -> None:
    """A short write is undone, the pairs are counted as failed, and later ones go on."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    writer.append(b'{"seq":1}')
    first = writer.flush().bytes_written
    with largest_file(first + 20):
        for _ in range(3):
            writer.append(os.urandom(500).hex().encode())
            with pytest.raises(OSError, match="too large"):
                writer.flush()
    assert writer.buffered_pairs == 0
    assert writer.statistics().failed_pairs == 3
    assert writer.statistics().error
    assert segment_numbers(directory) == [1]
    (segment,) = directory.glob("*.zst")
    assert segment.stat().st_size == first

    writer.append(b'{"seq":2}')
    writer.close()

    assert writer.statistics().error == ""
    assert lines_of(directory) == [b'{"seq":1}', b'{"seq":2}']


def test_more_than_a_frame_may_hold_is_refused(directory: Path) -> None:
    """The reader would take a larger frame for damage; its pairs are counted as failed."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    writer.append(b"x" * (MAX_CONTENT_BYTES + 1))
    with pytest.raises(OSError, match="more than a frame may hold"):
        writer.flush()
    assert writer.statistics().failed_pairs == 1
    writer.close()


def test_closing_lets_go_even_when_the_last_flush_fails(directory: Path) -> None:
    """A successor can take over at once."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    writer.append(os.urandom(500).hex().encode())
    with largest_file(10), pytest.raises(OSError, match="too large"):
        writer.close()
    JournalWriter(directory, disk_budget_bytes=GIB).close()


def test_zstdcat_reads_a_segment_as_it_is(directory: Path) -> None:
    """Several frames behind each other are one stream to every zstd tool."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    for number in range(3):
        writer.append(b'{"seq":%d}' % number)
        writer.flush()
    writer.close()
    (segment,) = directory.glob("*.zst")
    try:
        done = subprocess.run(["zstdcat", str(segment)], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("zstdcat is not installed")
    assert done.stdout == b'{"seq":0}\n{"seq":1}\n{"seq":2}\n'
