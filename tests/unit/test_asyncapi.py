"""The AsyncAPI document; `tests/conformance` holds real messages against it."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator, ValidationError

from bridge.core.asyncapi import data_schema, document
from bridge.core.routing import Routes
from bridge.model import Kind


@pytest.mark.parametrize("kind", Kind)
def test_the_schema_of_each_kind_is_a_schema(kind: Kind) -> None:
    for form in ("hex", "base64"):
        Draft202012Validator.check_schema(data_schema(kind, form))


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        ({}, True),
        ({"entryHash": "00ff", "credits": 1, "entityState": "ACCEPTED"}, True),
        ({"entityState": 9, "timestamp": "2026-01-01T00:00:00Z"}, True),
        ({"entryHash": "AAA="}, False),
        ({"entryHash": "00FF"}, False),
        ({"credits": "1"}, False),
        ({"entityState": "ACCEPTD"}, False),
        ({"entry_hash": "00"}, False),
    ],
)
def test_it_tells_good_data_from_bad(data: dict[str, object], valid: bool) -> None:
    validator = Draft202012Validator(data_schema(Kind.ENTRY_COMMIT))
    if valid:
        validator.validate(data)
    else:
        with pytest.raises(ValidationError):
            validator.validate(data)


def test_channels_are_the_topics_and_subjects_of_the_routes() -> None:
    routes = Routes("net", {Kind.ENTRY_REVEAL: "reveals"}, [Kind.STATE_CHANGE])
    channels = document(routes, "1", "json", "hex")["channels"]
    assert channels["kafka-entry-reveal"]["address"] == "net.reveals"
    assert channels["nats-entry-reveal"]["address"] == "net.reveals.{chainId}"
    assert channels["nats-gap-alert"]["address"] == "net.gap-alert.{status}"
    assert not [name for name in channels if "state-change" in name]
    assert len(channels) == 2 * (len(Kind) - 1)
