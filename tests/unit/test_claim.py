"""`core.claim`: what stands in for a message too large for the broker."""

import hashlib

from bridge.core.claim import claim_check, size
from bridge.model import Kind, Layout, Message

LARGE = Message(
    7,
    "an-id",
    "key",
    "token",
    Layout(Kind.ENTRY_REVEAL, (("specversion", "1.0"),), ("subject",)),
    ("s",),
    b"d" * 5000,
)


def test_a_claim_check_is_the_message_without_data_and_tells_where_that_is() -> None:
    check = claim_check(LARGE, "objects:there")
    assert check.data == b""
    assert (check.seq, check.id, check.key, check.token) == LARGE[:4]
    assert check.kind is LARGE.kind
    assert check.attributes == LARGE.attributes | {
        "dataref": "objects:there",
        "datasize": "5000",
        "datasha256": hashlib.sha256(LARGE.data).hexdigest(),
    }


def test_the_size_leaves_room_for_every_attribute() -> None:
    attributes = sum(len(k) + len(v) for k, v in LARGE.attributes.items())
    assert size(LARGE) > len(LARGE.data) + attributes
    assert size(claim_check(LARGE, "there")) < size(LARGE)
