"""`bridge.recording`: the format, its files, and folders of the same content."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections import Counter
from pathlib import Path

import pytest
from cramjam import zstd
from hypothesis import given, settings, strategies as st

from bridge.errors import RecordingDamaged, RecordingUnwritable, UsageError
from bridge.recording import (
    FileReader,
    FileWriter,
    FolderReader,
    Record,
    Transport,
    What,
    import_folder,
    open_recording,
)
from bridge.recording.format import BLOCK_BYTES, MAX_DATA, MAX_PLAIN, Decoder, Encoder
from tests.support.captures import CAPTURES, Capture, find_capture, not_here
from tests.support.recordings import datagrams_of, encoded, files_grow_to, streams_of

TCP, UDP = Transport.TCP, Transport.UDP

a_record = st.builds(
    Record,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from(Transport),
    st.sampled_from(What),
    st.binary(max_size=200),
)
quick = settings(max_examples=60, deadline=None)


def decoded(data: bytes) -> tuple[list[Record], RecordingDamaged | None]:
    decoder = Decoder()
    found: list[Record] = []
    decoder.receive(data)
    try:
        found.extend(decoder.records())
        decoder.finish()
    except RecordingDamaged as damage:
        return found, damage
    return found, None


def stored(plain: bytes, *, announced: int | None = None) -> bytes:
    """Return a file of one block with a good checksum, whatever is in it."""
    body = bytes(zstd.compress(plain))
    sizes = struct.pack("<II", len(body), len(plain) if announced is None else announced)
    check = zlib.crc32(body, zlib.crc32(sizes))
    return (
        Encoder().begin()
        + struct.pack("<II", 0x184D2A51, 12)
        + sizes
        + struct.pack("<I", check)
        + body
    )


# The format.


@quick
@given(st.lists(a_record, max_size=20), st.integers(0, 4), st.data())
def test_records_come_back_as_they_were_however_the_file_is_cut(
    records: list[Record], flush_each: int, data: st.DataObject
) -> None:
    written = encoded(records, flush_each=flush_each)
    cuts = data.draw(st.lists(st.integers(0, len(written)), max_size=8).map(sorted))
    decoder = Decoder()
    found: list[Record] = []
    for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True):
        decoder.receive(written[start:end])
        found += decoder.records()
    decoder.finish()
    assert found == records


@quick
@given(st.binary(max_size=300), st.booleans())
def test_noise_gives_records_or_a_recording_damaged_and_nothing_else(
    noise: bytes, begun: bool
) -> None:
    found, damage = decoded((Encoder().begin() if begun else b"") + noise)
    assert damage is not None
    assert found == []


@quick
@given(st.binary(max_size=300))
def test_noise_in_a_good_block_gives_records_or_a_recording_damaged(noise: bytes) -> None:
    found, damage = decoded(stored(noise))
    assert damage is not None
    assert all(record.what in What for record in found)


@quick
@given(st.lists(a_record, min_size=1, max_size=8), st.data())
def test_a_changed_byte_is_told_and_what_is_before_is_given(
    records: list[Record], data: st.DataObject
) -> None:
    written = bytearray(encoded(records, flush_each=1))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    found, damage = decoded(bytes(written))
    assert damage is not None
    assert damage.at <= at
    assert found == records[: len(found)]
    assert len(found) < len(records) or damage.at + 16 == len(written)


def test_a_file_cut_at_any_byte_gives_a_prefix_and_says_so() -> None:
    records = [Record(n, n % 3, TCP, What.READ, bytes([n]) * n) for n in range(40)]
    written = encoded(records, flush_each=7)
    whole = 0
    for size in range(len(written)):
        found, damage = decoded(written[:size])
        assert damage is not None
        assert found == records[: len(found)]
        assert len(found) >= whole
        whole = len(found)
    assert decoded(written) == (records, None)


def test_a_crash_loses_the_last_block_at_most() -> None:
    encoder = Encoder()
    written = encoder.begin()
    records = [Record(n, 1, TCP, What.READ, bytes(30_000)) for n in range(100)]
    for record in records:
        written += encoder.add(record)
    found, damage = decoded(written)
    assert damage is not None
    assert found == records[: len(found)]
    assert sum(len(record.data) for record in records[len(found) :]) < BLOCK_BYTES


def test_a_recording_is_a_zstd_file() -> None:
    records = [Record(7, 1, UDP, What.DATAGRAM, b"one"), Record(8, 1, UDP, What.STOPPED)]
    plain = bytes(zstd.decompress(encoded(records, flush_each=1)))
    assert plain == (
        struct.pack("<QIBBI", 7, 1, 2, 3, 3) + b"one" + struct.pack("<QIBBI", 8, 1, 2, 6, 0)
    )


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not ended"),
        (b"GET / HTTP/1.1\r\n\r\n", "no recording"),
        (Encoder().begin()[:-1] + b"\x02", "format 2"),
        (Encoder().begin() + b"\x00" * 20, "no block"),
        (Encoder().begin() + struct.pack("<IIIII", 0x184D2A51, 12, 2**31, 9, 0), "bytes that"),
        (Encoder().begin() + struct.pack("<IIIII", 0x184D2A51, 12, 9, 2**31, 0), "bytes that"),
        (stored(bytes(50_000_000), announced=MAX_PLAIN), "cannot be decompressed"),
        (stored(bytes(10), announced=20), "10 bytes, 20"),
        (stored(struct.pack("<QIBBI", 1, 1, 9, 1, 0)), "no record"),
        (stored(struct.pack("<QIBBI", 1, 1, 1, 9, 0)), "no record"),
        (stored(struct.pack("<QIBBI", 1, 1, 1, 2, 2**32 - 1)), "larger than its block"),
        (stored(struct.pack("<QIBBI", 1, 1, 1, 2, MAX_DATA + 1) + bytes(MAX_DATA + 1)), "than any"),
        (encoded([]) + b"\x00", "after the end"),
        (Encoder().begin() + struct.pack("<IIQ", 0x184D2A52, 8, 3), "3 records"),
    ],
)
def test_a_hostile_file_is_refused_with_its_reason(data: bytes, told: str) -> None:
    found, damage = decoded(data)
    assert found == []
    assert damage is not None
    assert told in str(damage)


def test_more_than_a_record_may_hold_is_refused_and_the_most_is_not() -> None:
    with pytest.raises(ValueError, match="more than"):
        Encoder().add(Record(1, 1, TCP, What.READ, bytes(MAX_DATA + 1)))
    records = [
        Record(1, 1, TCP, What.READ, bytes(BLOCK_BYTES - 20)),
        Record(1, 1, TCP, What.READ, bytes(MAX_DATA)),
    ]
    assert decoded(encoded(records)) == (records, None)


# The file.


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "feed.rec"
    path.write_bytes(b"dear")
    with pytest.raises(UsageError, match="--force"):
        FileWriter(path)
    assert path.read_bytes() == b"dear"
    FileWriter(path, force=True).close()
    assert list(FileReader(path)) == []


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"away.feed\.rec"):
        FileWriter(tmp_path / "away" / "feed.rec")
    with pytest.raises(UsageError, match=r"feed\.rec"):
        open_recording(tmp_path / "feed.rec")
    with pytest.raises(UsageError, match="part"):
        open_recording(tmp_path)


def test_a_full_disk_is_told_and_what_was_written_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "feed.rec"
    records = [Record(n, 1, TCP, What.READ, struct.pack("<Q", n) * 100) for n in range(100)]
    with (
        pytest.raises(RecordingUnwritable, match="readable up to") as caught,
        files_grow_to(1_500),
        FileWriter(path) as file,
    ):
        for record in records:
            file.add(record)
            file.flush()
    assert os.strerror(errno.EFBIG) in str(caught.value)
    found: list[Record] = []
    with pytest.raises(RecordingDamaged, match="not ended; 0 bytes"):
        found.extend(FileReader(path))
    assert found == records[: len(found)]
    assert found


# Folders.


@pytest.fixture(params=CAPTURES)
def capture(request: pytest.FixtureRequest) -> Capture:
    found = find_capture(request.param)
    if found is None:
        not_here(request.param)
    return found


def test_a_folder_imported_has_every_byte_and_end_in_order_of_time(
    capture: Capture, tmp_path: Path
) -> None:
    import_folder(capture.folder, tmp_path / "feed.rec")
    source = FileReader(tmp_path / "feed.rec")
    records = list(source)
    assert source.done == source.size
    assert records == list(FolderReader(capture.folder))
    assert [record.time_ns for record in records] == sorted(r.time_ns for r in records)
    assert streams_of(records) == capture.streams()
    assert datagrams_of(records) == [data for _, data in capture.datagrams()]
    happened = Counter(record.what for record in records)
    assert happened[What.OPEN] == sum(
        happened[end] for end in (What.CLOSE, What.RESET, What.STOPPED)
    )


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[1]",
        b"{}",
        b'{"t": 1}',
        b'{"t": -1, "n": 1}',
        b'{"t": 1e300, "n": 1}',
        b'{"t": "x", "n": 1}',
        b'{"t": 1, "n": -1}',
        b'{"t": 1, "n": 99}',
        b'{"t": 1, "n": 1}' + b"[" * 100_000,
    ],
)
def test_a_damaged_folder_is_told_after_what_is_before(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "part0-conn-00.bin").write_bytes(b"ab")
    (tmp_path / "part0-conn-00.jsonl").write_bytes(b'{"t": 1, "off": 0, "n": 2}\n' + line + b"\n")
    found: list[Record] = []
    with pytest.raises(RecordingDamaged, match=r"part0-conn-00\.jsonl"):
        found.extend(FolderReader(tmp_path))
    assert [record.data for record in found] == [b"ab"]


def test_a_disk_that_has_no_room_for_the_first_bytes_keeps_no_file(tmp_path: Path) -> None:
    path = tmp_path / "feed.rec"
    with files_grow_to(0), pytest.raises(RecordingUnwritable, match="its 0 bytes"):
        FileWriter(path)
    assert not path.exists()


def test_a_folder_that_cannot_be_read_is_told_as_damage(tmp_path: Path) -> None:
    (tmp_path / "part0-conn-00.jsonl").write_bytes(b'{"t": 1, "n": 1}\n')
    with pytest.raises(RecordingDamaged, match=r"part0-conn-00\.bin"):
        list(FolderReader(tmp_path))
    (tmp_path / "part0-conn-00.bin").mkdir()
    with pytest.raises(RecordingDamaged, match="directory"):
        list(FolderReader(tmp_path))
