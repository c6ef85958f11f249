"""Blocks of the NATS protocol: what the server's own grammar says, counted by another way."""

from __future__ import annotations

import re

import pytest

from bridge.core.claim import claim_check
from bridge.core.natswire import NatsWire, after
from bridge.core.routing import Routes
from bridge.model import Kind, Layout, Message

_COMMAND = re.compile(rb"HPUB (\S+) (\S*) ?(\d+) (\d+)\r\n")


def message(seq: int, data: bytes, token: str = "") -> Message:
    layout = Layout(Kind.ENTRY_REVEAL, (("source", "/factom/100% wool"),), ("id", "time"))
    return Message(seq, f"{seq:032x}", "key", token, layout, (f"{seq:032x}", "2026-01-01"), data)


def parsed(block: bytes) -> list[tuple[str, str, dict[str, str], bytes]]:
    found = []
    while block:
        command = _COMMAND.match(block)
        assert command is not None, block[:80]
        head, total = int(command[3]), int(command[4])
        body = block[command.end() : command.end() + total]
        assert block[command.end() + total :][:2] == b"\r\n"
        lines = body[:head].decode().split("\r\n")
        assert lines[0] == "NATS/1.0"
        assert lines[-2:] == ["", ""]
        headers = dict(line.split(": ", 1) for line in lines[1:-2])
        found.append((command[1].decode(), command[2].decode(), headers, body[head:]))
        block = block[command.end() + total + 2 :]
    return found


@pytest.fixture
def wire() -> NatsWire:
    return NatsWire("FACTOM", Routes("factom", {}, ()), "cafe")


def test_each_message_of_a_window_has_a_reply_of_its_own(wire: NatsWire) -> None:
    data = [b"one", b"", b"a\r\nHPUB x"]
    block = wire.block([message(7 + n, each, "aa") for n, each in enumerate(data)], "inbox.", None)

    found = parsed(block)

    assert [reply for _, reply, _, _ in found] == ["inbox.0", "inbox.1", "inbox.2"]
    assert [body for *_, body in found] == data
    assert {subject for subject, *_ in found} == {"factom.entry-reveal.aa"}
    assert found[0][2] == {
        "ce-source": "/factom/100%25%20wool",
        "ce-id": f"{7:032x}",
        "ce-time": "2026-01-01",
        "Nats-Msg-Id": f"{7:032x}",
        "Nats-Expected-Stream": "FACTOM",
        "bridge-seq": "7",
        "bridge-epoch": "cafe",
        "bridge-window": "1",
    }


def test_an_atomic_batch_is_numbered_from_one_and_only_its_last_is_answered(wire: NatsWire) -> None:
    found = parsed(wire.block([message(n, b"x") for n in range(3)], "inbox.", "b1"))

    assert [reply for _, reply, _, _ in found] == ["", "", "inbox.0"]
    assert [headers["Nats-Batch-Sequence"] for _, _, headers, _ in found] == ["1", "2", "3"]
    assert {headers["Nats-Batch-Id"] for _, _, headers, _ in found} == {"b1"}
    assert ["Nats-Batch-Commit" in headers for _, _, headers, _ in found] == [False, False, True]


@pytest.mark.parametrize("behind", ["", "f00d"])
def test_a_chain_names_what_is_in_front_of_each_and_only_its_last_is_answered(
    wire: NatsWire, behind: str
) -> None:
    front = after(behind, 41) if behind else ""
    found = parsed(wire.block([message(n, b"x") for n in range(3)], "inbox.", None, front))

    assert [reply for _, reply, _, _ in found] == ["", "", "inbox.0"]
    guards = [headers.get("Nats-Expected-Last-Msg-Id", "") for _, _, headers, _ in found]
    assert guards == [behind, f"{0:032x}", f"{1:032x}"]
    numbers = [headers.get("Nats-Expected-Last-Sequence") for _, _, headers, _ in found]
    assert numbers == ["41" if behind else None, None, None]
    assert not any("bridge-window" in headers for _, _, headers, _ in found)


@pytest.mark.parametrize(
    ("batch", "behind"), [(None, after("f00d", 7)), ("b1", None), (None, None)]
)
def test_the_servers_own_headers_come_first(
    wire: NatsWire, batch: str | None, behind: str | None
) -> None:
    for _, _, headers, _ in parsed(wire.block([message(1, b"x")], "inbox.", batch, behind)):
        ours = [name for name in headers if not name.startswith("Nats-")]
        assert list(headers)[-len(ours) :] == ours


def test_a_message_sent_alone_is_no_part_of_a_window(wire: NatsWire) -> None:
    (_, _, headers, _) = parsed(wire.block([message(1, b"x")], "inbox.", None))[0]
    assert "bridge-window" not in headers


def test_a_claim_check_has_the_attributes_of_its_message_and_the_reference(wire: NatsWire) -> None:
    checked = claim_check(message(1, b"data"), "nats:///large/1")

    (_, _, headers, body) = parsed(wire.block([checked], "i.", None))[0]

    assert body == b""
    assert headers["ce-dataref"] == "nats:///large/1"
    assert headers["ce-datasize"] == "4"
    assert headers["ce-time"] == "2026-01-01"
