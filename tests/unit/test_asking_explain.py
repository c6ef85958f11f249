"""`explain`: what is about a subject is found in the journal and in the brokers, and told."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings as hypothesis_settings, strategies as st
from rich.console import Console

from bridge.asking import published, recorded
from bridge.asking.answer import Answer
from bridge.asking.explain import explain_shown
from bridge.asking.sightings import Sighting, Sightings
from bridge.asking.subject import Subject
from bridge.core.decode import decode
from bridge.core.facts import FACTS
from bridge.core.framing import frame
from bridge.core.groups import own_run
from bridge.core.render import Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.errors import StorageDamaged, StorageUnusable, UsageError
from bridge.journal import open_journal
from bridge.journal.reading import Horizon, open_file
from bridge.metrics import Metrics
from bridge.model import Kind, Run
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert, HeightRange
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from bridge.settings import JournalSettings, Settings, StatusSettings
from bridge.verifying.data import Data
from bridge.verifying.source import Published
from tests.brokers.process import free_port
from tests.support.events import SMALL, small_capture
from tests.support.go import go_json

NOW_NS = 1_700_000_000_123_456_789
HASH, CHAIN, OTHER = b"\xaa" * 32, b"\xcc" * 32, b"\x0f" * 32


def quiet(_what: Any, _left: Any = 0) -> None:
    """Nobody looks at the bars."""


# What a subject is


@pytest.mark.parametrize("text", ["", "-1", "4294967296", "1.5", "ab", "g" * 64, "a" * 63, "٣"])
def test_what_is_neither_hash_nor_height_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither"):
        Subject.parse(text)


def test_hashes_and_heights_are_told_apart() -> None:
    assert Subject.parse("0" * 64) == Subject(hash=bytes(32))
    assert Subject.parse("AB" * 32) == Subject(hash=b"\xab" * 32)
    assert Subject.parse("4294967295") == Subject(height=2**32 - 1)


def _hashes(member: Any) -> Iterator[bytes]:
    for field, value in member.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == FieldDescriptor.TYPE_BYTES:
            yield from (each for each in values if len(each) == 32)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in values:
                yield from _hashes(each)


@pytest.mark.parametrize("name", SMALL)
def test_no_recorded_event_about_a_subject_is_passed_over(name: str) -> None:
    payloads = small_capture(name).payloads()[:150]
    for payload in payloads:
        event = decode(payload)
        if event is None:
            continue
        member = FactomEvent.FromString(payload) if payload[:1] != b"{" else None
        for form in (payload, *((go_json(member),) if member is not None else ())):
            for hash_ in set(_hashes(event.member)):
                subject = Subject(hash=hash_)
                assert subject.within(form)
                assert subject.roles(event.kind, event.member)
            if "blockheight" in FACTS[event.kind].extensions:
                subject = Subject(height=int(FACTS[event.kind].read(event.member)[1]))
                assert subject.within(form)
                assert subject.roles(event.kind, event.member) == ("height",)


@given(st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=200)
def test_no_height_is_passed_over(height: int) -> None:
    block: Any = {"directoryBlock": {"header": {"blockHeight": height}}}
    subject = Subject(height=height)
    for fields in (
        {"directoryBlockCommit": block},
        {"directoryBlockAnchor": {"blockHeight": height}},
        {"processListEvent": {"newBlockEvent": {"newBlockHeight": height}}},
        {"processListEvent": {"newMinuteEvent": {"blockHeight": height}}},
    ):
        event = FactomEvent(**fields)
        assert subject.within(event.SerializeToString())
        assert subject.within(go_json(event))


def test_a_chains_id_is_found_in_its_chain_commit_too() -> None:
    subject = Subject(hash=CHAIN)
    twice = FactomEvent(chainCommit={"chainIDHash": subject.needles[1], "entryHash": HASH})
    assert subject.within(twice.SerializeToString())
    assert subject.roles(Kind.CHAIN_COMMIT, twice.chainCommit) == ("chainIDHash",)


# In the journal


def renderer(**options: Any) -> Renderer:
    chosen: dict[str, Any] = {"off": (), "chains": ()} | options
    return Renderer(
        network="main",
        epoch="e",
        routes=Routes("factom", {}, chosen["off"]),
        chains=ChainFilter.of(chosen["chains"]),
    )


def payload_of(**fields: Any) -> bytes:
    return FactomEvent(**fields).SerializeToString()


def run_of(*payloads: bytes, peer: str = "tcp/1") -> Run:
    return Run(peer, NOW_NS, len(payloads), b"".join(map(frame, payloads)))


COMMIT = payload_of(entryCommit={"entryHash": HASH, "entityState": 1}, identityChainID=OTHER)
REVEAL = payload_of(entryReveal={"entry": {"hash": HASH, "chainID": CHAIN}})
STRANGE = payload_of(entryReveal={"entry": {"hash": OTHER, "chainID": OTHER}})
BLOCK = payload_of(
    eventSource=1,
    directoryBlockCommit={
        "directoryBlock": {"header": {"blockHeight": 7}, "keyMerkleRoot": OTHER},
        "entryBlocks": [{"entryHashes": [HASH]}],
    },
)
RECEIPT = BlockReceipt(height=7, key_merkle_root=OTHER, commits_expected=2, commits_seen=2)
ALERT = GapAlert(
    gap_id="main-4-9",
    type=GapAlert.TYPE_GAP,
    status=GapAlert.STATUS_OPENED,
    first_height=4,
    last_height=9,
    missing=[HeightRange(first=6, last=7)],
    missing_count=2,
)


async def journal_of(folder: Path, *runs: Run) -> None:
    async with open_journal(JournalSettings(dir=folder), Metrics()) as journal:
        for run in runs:
            await journal.append([run])


def own(kind: Kind, message: Any) -> Run:
    return own_run(kind, message.SerializeToString(), NOW_NS)


def found(folder: Path, subject: Subject, **options: Any) -> list[Sighting]:
    with open_file(folder) as file:
        return list(recorded.recorded(file, subject, renderer(**options), quiet))


async def test_an_entry_is_found_in_events_and_in_blocks(tmp_path: Path) -> None:
    garbage = b"\xff" + HASH
    await journal_of(
        tmp_path, run_of(STRANGE, COMMIT, REVEAL), run_of(BLOCK, garbage, peer="udp/3")
    )
    sightings = found(tmp_path, Subject(hash=HASH))
    assert [(s.seq, s.peer, s.kind, s.roles, s.state, s.way) for s in sightings] == [
        (2, "tcp/1", Kind.ENTRY_COMMIT, ("entryHash",), "ACCEPTED", "live"),
        (3, "tcp/1", Kind.ENTRY_REVEAL, ("entry.hash",), "REQUESTED", "live"),
        (
            4,
            "udp/3",
            Kind.DIRECTORY_BLOCK_COMMIT,
            ("entryBlocks.entryHashes",),
            "hashes",
            "replay",
        ),
        (5, "udp/3", Kind.DEAD_LETTER, ("bytes",), "invalid-protobuf", "bridge"),
    ]
    assert sightings[0].received == "2023-11-14T22:13:20.123456Z"
    assert sightings[0].attributes["nodeidentity"] == OTHER.hex()
    assert sightings[2].height == 7
    assert len({s.id for s in sightings}) == 4


async def test_what_is_left_out_says_why(tmp_path: Path) -> None:
    await journal_of(tmp_path, run_of(COMMIT, REVEAL))
    options = {"off": (Kind.ENTRY_COMMIT,), "chains": (OTHER,)}
    commit, reveal = found(tmp_path, Subject(hash=HASH), **options)
    assert (commit.left_out, commit.id) == ("switched-off", "")
    assert (reveal.left_out, reveal.id) == ("other-chain", "")


async def test_a_height_is_found_with_what_was_fetched_and_said_of_it(tmp_path: Path) -> None:
    await journal_of(
        tmp_path,
        run_of(payload_of(processListEvent={"newMinuteEvent": {"newMinute": 3, "blockHeight": 7}})),
        run_of(payload_of(processListEvent={"newBlockEvent": {"newBlockHeight": 8}})),
        own(Kind.GAP_ALERT, ALERT),
        run_of(REVEAL, peer="api/7"),
        run_of(REVEAL, peer="api/77"),
        own(Kind.BLOCK_RECEIPT, RECEIPT),
        own(Kind.BLOCK_RECEIPT, BlockReceipt(height=6)),
    )
    sightings = found(tmp_path, Subject(height=7))
    assert [(s.seq, s.kind, s.state) for s in sightings] == [
        (1, Kind.PROCESS_LIST_EVENT, "minute 3"),
        (3, Kind.GAP_ALERT, "opened"),
        (4, Kind.ENTRY_REVEAL, "REQUESTED"),
        (6, Kind.BLOCK_RECEIPT, "not complete"),
    ]
    assert sightings[2].roles == ("fetched for it",)


async def test_height_zero_is_found_though_protobuf_does_not_write_it(tmp_path: Path) -> None:
    block = payload_of(directoryBlockCommit={"directoryBlock": {"keyMerkleRoot": HASH}})
    receipt = own(Kind.BLOCK_RECEIPT, BlockReceipt(commits_expected=1))
    await journal_of(tmp_path, run_of(COMMIT, block), receipt)
    assert [s.seq for s in found(tmp_path, Subject(height=0))] == [2, 3]


async def test_the_latest_words_of_the_bridge_count(tmp_path: Path) -> None:
    later = BlockReceipt(height=7, complete=True)
    resolved = GapAlert(
        gap_id="main-4-9",
        type=GapAlert.TYPE_GAP,
        status=GapAlert.STATUS_RESOLVED,
        first_height=4,
        last_height=9,
    )
    await journal_of(
        tmp_path,
        own(Kind.GAP_ALERT, ALERT),
        own(Kind.BLOCK_RECEIPT, RECEIPT),
        own(Kind.BLOCK_RECEIPT, BlockReceipt(height=8)),
        own(Kind.BLOCK_RECEIPT, later),
        own(Kind.GAP_ALERT, resolved),
    )
    with open_file(tmp_path) as file:
        account = recorded.account(file, [7], quiet)
    assert account.receipts == {7: later}
    assert account.alerts == {"main-4-9": resolved}


async def test_of_very_many_events_the_first_and_the_last_are_kept(tmp_path: Path) -> None:
    reveals = [
        payload_of(entryReveal={"entry": {"hash": b"%032d" % n, "chainID": CHAIN}})
        for n in range(5_000)
    ]
    await journal_of(tmp_path, run_of(*reveals))
    with open_file(tmp_path) as file:
        sightings = recorded.recorded(file, Subject(hash=CHAIN), renderer(), quiet)
    kept = [sighting.seq for sighting in sightings]
    assert sightings.counts == {Kind.ENTRY_REVEAL: 5_000}
    assert kept == [*range(1, 13), 5_000]
    assert sightings.not_kept() == {Kind.ENTRY_REVEAL: 4_987}
    first, last = sightings.ends()[Kind.ENTRY_REVEAL]
    assert (first.seq, last.seq) == (1, 5_000)


async def test_the_journal_is_read_while_the_bridge_writes_it(tmp_path: Path) -> None:
    async with open_journal(JournalSettings(dir=tmp_path), Metrics()) as journal:
        journal.register(["nats"])
        await journal.append([run_of(COMMIT, STRANGE)])
        with open_file(tmp_path) as file:
            looked = recorded.recorded(file, Subject(hash=HASH), renderer(), quiet)
            assert [sighting.seq for sighting in looked] == [1]
            await journal.append([run_of(REVEAL)])
            journal.checkpoint("nats", 3)
            await journal.flush()
            looked = recorded.recorded(file, Subject(hash=HASH), renderer(), quiet)
            assert [sighting.seq for sighting in looked] == [1, 3]
            assert file.horizon() == Horizon(1, NOW_NS, 3)
            assert file.positions() == {"nats": 3}
            assert file.epoch == journal.epoch


async def test_damaged_records_are_no_answer(tmp_path: Path) -> None:
    await journal_of(tmp_path, run_of(COMMIT), run_of(REVEAL))
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    connection.execute("UPDATE groups SET checksum = checksum + 1 WHERE first = 1")
    connection.close()
    assert [sighting.seq for sighting in found(tmp_path, Subject(hash=HASH))] == [2]


async def test_an_empty_journal_goes_back_to_nothing(tmp_path: Path) -> None:
    await journal_of(tmp_path)
    with open_file(tmp_path) as file:
        assert file.horizon() == Horizon(0, 0, 0)


def test_what_is_no_journal_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StorageUnusable, match="no journal"), open_file(tmp_path):
        pass
    (tmp_path / "journal.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(StorageDamaged), open_file(tmp_path):
        pass


# In the brokers


class Broker:
    """A source with messages of one kind, stored one a minute from `NOW_NS` on."""

    name = "kafka"

    def __init__(self, kind: Kind, *messages: tuple[dict[str, str], bytes]) -> None:
        self._kind = kind
        self._messages = [
            Published(f"there at {n}", len(messages) - n - 1, attributes, data, {"offset": n})
            for n, (attributes, data) in enumerate(messages)
        ]
        self.read_from: list[int] = []
        self.given = 0

    async def read(self, kind: Kind, since_ns: int = 0) -> AsyncGenerator[Published, None]:
        self.read_from.append(since_ns)
        for number, message in enumerate(self._messages if kind is self._kind else ()):
            if NOW_NS + number * 60_000_000_000 >= since_ns:
                self.given += 1
                yield message

    async def fetch(self, reference: str) -> bytes:
        raise LookupError(reference)


def sighting(id_: str, seq: int = 1, received: str = "2023-11-14T22:13:20.5Z") -> Sighting:
    kind = Kind.ENTRY_COMMIT
    return Sighting(seq, received, "tcp/1", kind, ("entryHash",), "", {"id": id_} if id_ else {})


def many(count: int) -> list[tuple[dict[str, str], bytes]]:
    return [({"id": str(n)}, b"") for n in range(count)]


async def test_a_message_is_looked_for_near_its_time_and_no_further() -> None:
    broker = Broker(Kind.ENTRY_COMMIT, *many(1_000))
    at = "2023-11-14T23:53:20Z"  # 100 minutes later
    looked_for = published.wanted([sighting("101", received=at), sighting("103"), sighting("")])
    assert looked_for[Kind.ENTRY_COMMIT].ids == {"101", "103"}
    places = await published.locate(broker, published.wanted([sighting("101", received=at)]), quiet)
    assert places == {"101": [{"offset": 101}]}
    assert broker.given < 5


async def test_a_message_sent_long_before_is_found_all_the_same() -> None:
    broker = Broker(Kind.ENTRY_COMMIT, *many(1_000))
    looked_for = published.wanted([sighting("3", received="2023-11-14T23:53:20Z")])
    assert await published.locate(broker, looked_for, quiet) == {"3": [{"offset": 3}]}
    assert len(broker.read_from) == 2
    assert broker.read_from[1] == 0


async def test_a_broker_read_whole_tells_what_is_about_the_subject() -> None:
    told = {
        "datacontenttype": "application/json",
        "sequence": "00000000000000000005",
        "recordedtime": "2023-11-14T22:13:20Z",
        "origin": "live",
    }
    data = json.dumps({"entryHash": HASH.hex()}).encode()
    broker = Broker(
        Kind.ENTRY_COMMIT,
        (told | {"id": "other"}, json.dumps({"entryHash": OTHER.hex()}).encode()),
        (told | {"id": "it"}, data),
        (told | {"id": "gone", "dataref": "kafka:///gone/0?offsets=1"}, b""),
        (told | {"id": "broken"}, data[:-1]),
    )
    subject = Subject(hash=HASH)
    seen = await published.search(broker, subject, list(Kind), Data(broker, "hex"), quiet)
    (only,) = seen
    assert (only.id, only.seq, only.kind, only.where) == (
        "it",
        5,
        Kind.ENTRY_COMMIT,
        {"offset": 1},
    )


# What is told


def shown(answer: Answer) -> str:
    out = Console(file=io.StringIO(), width=200, highlight=False, soft_wrap=True)
    answer.show(out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_where_a_message_stands_or_why_nowhere_is_told() -> None:
    answer = Answer(Subject(hash=HASH))
    answer.positions = {"kafka": 2, "nats": 3}
    for each in (sighting("a", 1), sighting("b", 2), sighting("c", 3)):
        answer.sightings.add(each)
    answer.sightings.add(sighting("", 4)._replace(left_out="switched-off"))
    answer.places = {
        "kafka": {"a": [{"topic": "t", "partition": 1, "offset": 12}]},
        "nats": {"a": [{"stream": "S", "subject": "t.x", "sequence": 9}]},
    }
    lines = [line.strip() for line in shown(answer).splitlines() if not line.startswith("2023")]
    assert lines == [
        HASH.hex(),
        "as entryHash",
        "kafka: t at 1/12",
        "nats: S 9, t.x",
        "as entryHash",
        "kafka: not there (any more)",
        "nats: not there (any more)",
        "as entryHash",
        "kafka: not sent yet",
        "nats: not there (any more)",
        "as entryHash",
        "not published: the kind is switched off (BRIDGE_OFF)",
        "its reveal is not among them",
    ]


def test_a_broker_read_whole_adds_what_the_journal_had_not() -> None:
    answer = Answer(Subject(hash=HASH))
    answer.sightings.add(sighting("a", 5))
    seen = Sightings()
    for id_, offset in (("old", 1), ("a", 5), ("a", 6)):
        seen.add(sighting(id_, offset)._replace(where={"offset": offset}))
    answer.seen_in("kafka", seen)
    assert [(each.id, each.seq) for each in answer.sightings] == [("old", 1), ("a", 5)]
    assert answer.places["kafka"]["a"] == [{"offset": 5}, {"offset": 6}]
    published_at = {each["id"]: each["published"] for each in answer.told["events"]}
    assert published_at["old"] == [{"broker": "kafka", "offset": 1}]


async def explained(settings: Settings, text: str, *, as_json: bool = True) -> tuple[int, str]:
    out = Console(file=io.StringIO(), width=200, soft_wrap=True, highlight=False)
    code = await explain_shown(settings, text, out, out, as_json=as_json, whole=False)
    assert isinstance(out.file, io.StringIO)
    return code, out.file.getvalue()


async def test_what_is_missing_of_a_height_is_told_from_receipt_and_alert(tmp_path: Path) -> None:
    await journal_of(
        tmp_path,
        run_of(COMMIT),
        own(Kind.GAP_ALERT, ALERT),
        own(Kind.BLOCK_RECEIPT, RECEIPT),
        run_of(BLOCK),
    )
    settings = Settings(
        journal=JournalSettings(dir=tmp_path), status=StatusSettings(port=free_port())
    )
    code, text = await explained(settings, "7", as_json=False)
    assert code == 0
    assert "height 7: not complete; verified: nothing; commits: 2 seen" in text
    assert "gap main-4-9, heights 4 to 9: opened; missing 2: 6-7; height 7 is one of them" in text
    assert "no bridge answers" in text
    assert "the journal goes back to number 1, of 2023-11-14T22:13:20Z, and up to 4" in text

    # An entry's height is the block's that lists it.
    code, text = await explained(settings, HASH.hex())
    answer = json.loads(text)
    assert code == 0
    assert [receipt["height"] for receipt in answer["receipts"]] == [7]
    assert [gap["id"] for gap in answer["gaps"]] == ["main-4-9"]
    assert answer["not_seen"] == ["reveal"]
    assert (await explained(settings, "ab" * 32))[0] == 1
