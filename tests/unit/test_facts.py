"""`core.facts`: key, subject, time, token and extensions of each kind."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.facts import FACTS, Facts
from bridge.core.render import MESSAGE_TYPES
from bridge.model import Kind
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert

HASH, CHAIN = b"\xab" * 32, b"\xcd" * 32
HEX, CHAIN_HEX = "ab" * 32, "cd" * 32
AT = Timestamp(seconds=1_700_000_000, nanos=120_000_000)
QUIRK = Timestamp(seconds=1_700_000_000, nanos=120_000)
ENTRY = {"hash": HASH}
WITH_CONTENT = {"hash": HASH, "content": b"c"}


def at_height(height: int) -> dict[str, Any]:
    return {"header": {"blockHeight": height, "timestamp": AT}}


def block(height: int, **more: Any) -> dict[str, Any]:
    return {"directoryBlock": at_height(height), **more}


CASES: list[tuple[Kind, dict[str, Any], Facts]] = [
    (
        Kind.CHAIN_COMMIT,
        {"chainIDHash": HASH, "timestamp": AT, "entityState": 1},
        Facts(HEX, HEX, AT.seconds, AT.nanos, "", (("entitystate", "ACCEPTED"),)),
    ),
    (
        Kind.ENTRY_COMMIT,
        {"entryHash": HASH, "timestamp": AT},
        Facts(HEX, HEX, AT.seconds, AT.nanos, "", (("entitystate", "REQUESTED"),)),
    ),
    (
        Kind.ENTRY_COMMIT,
        {"entryHash": b"\x01" * 1000, "entityState": 99},
        Facts("01" * 64, "01" * 64, extensions=(("entitystate", "99"),)),
    ),
    (
        Kind.ENTRY_REVEAL,
        {"entry": {"chainID": CHAIN}, "timestamp": QUIRK},
        Facts(
            CHAIN_HEX,
            CHAIN_HEX,
            AT.seconds,
            AT.nanos,
            CHAIN_HEX,
            (("entitystate", "REQUESTED"), ("chainid", CHAIN_HEX)),
        ),
    ),
    (
        Kind.STATE_CHANGE,
        {"entityHash": HASH, "entityState": 3, "blockHeight": 5},
        Facts(HEX, HEX, extensions=(("entitystate", "COMMITTED_TO_DIRECTORY_BLOCK"),)),
    ),
    *(
        (
            Kind.DIRECTORY_BLOCK_COMMIT,
            block(7, **more),
            Facts(
                None,
                "7",
                AT.seconds,
                AT.nanos,
                "",
                (("blockheight", "7"), ("blockdetail", detail)),
            ),
        )
        for detail, more in [
            ("summary", {}),
            ("hashes", {"entryBlocks": [{}]}),
            ("hashes", {"entryBlocks": [{}], "entryBlockEntries": [ENTRY]}),
            ("full", {"entryBlocks": [{}], "entryBlockEntries": [ENTRY, WITH_CONTENT]}),
            ("full", {"entryBlockEntries": [{"externalIDs": [b"x"]}]}),
        ]
    ),
    (
        Kind.DIRECTORY_BLOCK_ANCHOR,
        {"blockHeight": 8, "timestamp": AT},
        Facts("8", "8", AT.seconds, AT.nanos, "", (("blockheight", "8"),)),
    ),
    (
        Kind.PROCESS_LIST_EVENT,
        {"newBlockEvent": {"newBlockHeight": 9}},
        Facts(None, "9", extensions=(("blockheight", "9"),)),
    ),
    (
        Kind.PROCESS_LIST_EVENT,
        {"newMinuteEvent": {"newMinute": 2, "blockHeight": 10}},
        Facts(None, "10", extensions=(("blockheight", "10"),)),
    ),
    (
        Kind.GAP_ALERT,
        {"gap_id": "main-4-25", "status": GapAlert.STATUS_RESOLVED, "changed_at": AT},
        Facts("main-4-25", "main-4-25", AT.seconds, AT.nanos, "resolved"),
    ),
    (Kind.BLOCK_RECEIPT, {"height": 3}, Facts("3", "3", extensions=(("blockheight", "3"),))),
    (
        Kind.DEAD_LETTER,
        {"reason": "invalid-json", "received_at": AT},
        Facts("invalid-json", "invalid-json", AT.seconds, AT.nanos, "invalid-json"),
    ),
]


@pytest.mark.parametrize(("kind", "fields", "facts"), CASES)
def test_facts_are_taken_from_the_member_alone(
    kind: Kind, fields: dict[str, Any], facts: Facts
) -> None:
    assert FACTS[kind](MESSAGE_TYPES[kind](**fields)) == facts


def test_every_kind_but_the_node_message_has_facts() -> None:
    assert FACTS.keys() == set(Kind) - {Kind.NODE_MESSAGE}
    assert {kind for kind, _, _ in CASES} == FACTS.keys()


def test_a_kind_without_values_still_has_facts() -> None:
    for kind, facts in FACTS.items():
        assert isinstance(facts(MESSAGE_TYPES[kind]()), Facts)
