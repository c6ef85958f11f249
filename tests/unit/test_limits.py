"""Limits that no other test of a part names: of the node's answers, of logs and of metrics."""

from __future__ import annotations

import pytest

from bridge import log, node
from bridge.core.decode import MAX_PARTS, decode
from bridge.core.holes import MAX_JUMP
from bridge.errors import DecodeError
from bridge.metrics import Metrics

_LABELS = {"transport", "reason", "sink", "kind", "code", "type", "status", "way", "outcome"}
_LABELS |= {"verdict"}


async def test_the_node_has_5_s_to_connect_and_30_s_and_32_mib_for_an_answer() -> None:
    async with node.open_node("http://127.0.0.1:1/v2") as api:
        timeout = api._session.timeout
    assert (timeout.sock_connect, timeout.total) == (5, 30)
    assert node._ANSWER_BYTES == 32 * 1024 * 1024


def test_the_longest_jump_believed_is_a_million() -> None:
    assert MAX_JUMP == 1_000_000


def test_a_value_in_the_log_has_1000_characters_at_most() -> None:
    given = {"event": "told", "short": "s" * 1_000, "long": "l" * 1_001}
    told = log._bounded(None, "info", given)
    assert (told["short"], told["long"]) == ("s" * 1_000, "l" * 1_000 + "...")


def test_a_refusal_is_logged_once_in_its_time_and_says_how_many_were_not() -> None:
    throttle = log.Throttle(3_600)
    assert [throttle.passes(each) for each in ("a", "a", "b", "a")] == [0, None, 0, None]


def test_no_label_of_a_metric_can_hold_an_address_or_a_hash() -> None:
    collectors = Metrics().registry._collector_to_names
    assert {label for each in collectors for label in getattr(each, "_labelnames", ())} == _LABELS


def test_json_may_be_32_deep_and_no_deeper() -> None:
    for depth, refused in ((32, False), (33, True)):
        payload = b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        try:
            decode(payload)
        except DecodeError as error:
            assert refused == ("deeper than 32" in str(error))
        else:
            assert not refused


def test_100_000_parts_are_few_enough_for_any_payload() -> None:
    assert MAX_PARTS == 100_000


@pytest.mark.parametrize("depth", [101, 100_000])
def test_protobuf_nested_without_end_is_refused(depth: int) -> None:
    # The schema is 4 deep; only unknown groups can be deeper, and the library walks 100 of them.
    with pytest.raises(DecodeError) as caught:
        decode(b"\x73" * depth + b"\x74" * depth)
    assert caught.value.reason in {"invalid-protobuf", "too-many-parts"}
