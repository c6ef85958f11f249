"""`core.facts`: key, subject, time, token and extensions of each kind."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.facts import FACTS
from bridge.core.render import MESSAGE_TYPES
from bridge.model import Kind
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert

HASH, CHAIN = b"\xab" * 32, b"\xcd" * 32
HEX, CHAIN_HEX = "ab" * 32, "cd" * 32
AT = Timestamp(seconds=1_700_000_000, nanos=120_000_000)
QUIRK = Timestamp(seconds=1_700_000_000, nanos=120_000)
ENTRY = {"hash": HASH}
WITH_CONTENT = {"hash": HASH, "content": b"c"}
DETAILS: list[tuple[str, dict[str, Any]]] = [
    ("summary", {}),
    ("hashes", {"entryBlocks": [{}]}),
    ("hashes", {"entryBlocks": [{}], "entryBlockEntries": [ENTRY]}),
    ("full", {"entryBlocks": [{}], "entryBlockEntries": [ENTRY, WITH_CONTENT]}),
    ("full", {"entryBlockEntries": [{"externalIDs": [b"x"]}]}),
]


def at_height(height: int) -> dict[str, Any]:
    return {"header": {"blockHeight": height, "timestamp": AT}}


def block(height: int, **more: Any) -> dict[str, Any]:
    return {"directoryBlock": at_height(height), **more}


Case = tuple[Kind, dict[str, Any], str | None, str, Timestamp | None, str, dict[str, str]]
"""Kind, fields, and what is read: key, subject, time, token, extensions."""

CASES: list[Case] = [
    (
        Kind.CHAIN_COMMIT,
        {"chainIDHash": HASH, "timestamp": AT, "entityState": 1},
        *(HEX, HEX, AT, "", {"entitystate": "ACCEPTED"}),
    ),
    (
        Kind.ENTRY_COMMIT,
        {"entryHash": HASH, "timestamp": AT},
        *(HEX, HEX, AT, "", {"entitystate": "REQUESTED"}),
    ),
    (
        Kind.ENTRY_COMMIT,
        {"entryHash": b"\x01" * 1000, "entityState": 99},
        *("01" * 64, "01" * 64, None, "", {"entitystate": "99"}),
    ),
    (
        Kind.ENTRY_REVEAL,
        {"entry": {"chainID": CHAIN}, "timestamp": QUIRK},
        *(CHAIN_HEX, CHAIN_HEX, AT, CHAIN_HEX),
        {"entitystate": "REQUESTED", "chainid": CHAIN_HEX},
    ),
    (
        Kind.STATE_CHANGE,
        {"entityHash": HASH, "entityState": 3, "blockHeight": 5},
        *(HEX, HEX, None, "", {"entitystate": "COMMITTED_TO_DIRECTORY_BLOCK"}),
    ),
    *(
        (
            Kind.DIRECTORY_BLOCK_COMMIT,
            block(7, **more),
            *(None, "7", AT, "", {"blockheight": "7", "blockdetail": detail}),
        )
        for detail, more in DETAILS
    ),
    (
        Kind.DIRECTORY_BLOCK_ANCHOR,
        {"blockHeight": 8, "timestamp": AT},
        *("8", "8", AT, "", {"blockheight": "8"}),
    ),
    (
        Kind.PROCESS_LIST_EVENT,
        {"newBlockEvent": {"newBlockHeight": 9}},
        *(None, "9", None, "", {"blockheight": "9"}),
    ),
    (
        Kind.PROCESS_LIST_EVENT,
        {"newMinuteEvent": {"newMinute": 2, "blockHeight": 10}},
        *(None, "10", None, "", {"blockheight": "10"}),
    ),
    (Kind.NODE_MESSAGE, {"messageText": "up"}, "", "", None, "", {}),
    (
        Kind.GAP_ALERT,
        {"gap_id": "main-4-25", "status": GapAlert.STATUS_RESOLVED, "changed_at": AT},
        *("main-4-25", "main-4-25", AT, "resolved", {}),
    ),
    (Kind.BLOCK_RECEIPT, {"height": 3}, "3", "3", None, "", {"blockheight": "3"}),
    (
        Kind.DEAD_LETTER,
        {"reason": "invalid-json", "received_at": AT},
        *("invalid-json", "invalid-json", AT, "invalid-json", {}),
    ),
]


@pytest.mark.parametrize(
    ("kind", "fields", "key", "subject", "at", "token", "extensions"),
    CASES,
    ids=[case[0].value for case in CASES],
)
def test_facts_are_taken_from_the_member_alone(
    kind: Kind,
    fields: dict[str, Any],
    key: str | None,
    subject: str,
    at: Timestamp | None,
    token: str,
    extensions: dict[str, str],
) -> None:
    names, read = FACTS[kind]
    at = at or Timestamp()
    *found, values = read(MESSAGE_TYPES[kind](**fields))
    assert found == [key, subject, at.seconds, at.nanos, token]
    assert dict(zip(names, values, strict=True)) == extensions


def test_every_kind_has_facts() -> None:
    assert FACTS.keys() == {case[0] for case in CASES} == set(Kind)


def test_a_message_without_values_still_has_facts() -> None:
    for kind, (names, read) in FACTS.items():
        *_, values = read(MESSAGE_TYPES[kind]())
        assert len(names) == len(values)
