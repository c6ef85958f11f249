"""Receivers that went away, as recorded: what arrives, when, on which connection, what is lost.

Receivers come and go at the recorded times; events are emitted when the node emitted them, which
the recording tells: an event that arrived with others behind a reconnection is as old as the
minute that it follows, and minutes are a tenth of a block's time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.sender import Sender
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.captures import Capture, find_capture, not_here
from tests.unit.emitter.network import Weather, event_of, frames, running, settled

FOR_EVER = float("inf")


def recorded(name: str) -> Capture:
    capture = find_capture(name)
    if capture is None:
        not_here(name)
    return capture


def meta_of(capture: Capture) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((capture.folder / "meta.json").read_text())
    return meta


def log_of(capture: Capture, part: int) -> list[dict[str, Any]]:
    lines = (capture.folder / f"part{part}-conn-00.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def receivers(capture: Capture) -> list[tuple[float, float]]:
    """When each receiver listened: from its start to the last thing that it recorded."""
    starts = [at for at, text in meta_of(capture)["timeline"] if text.startswith("receiver star")]
    logs = [log_of(capture, part) for part in range(len(starts))]
    ends = [log[-1]["t"] if log[-1]["event"] == "stopped" else FOR_EVER for log in logs]
    return list(zip(starts, ends, strict=True))


def minute_of(event: FactomEvent) -> int | None:
    """Minutes since height 0, of an event that begins one."""
    begun = event.processListEvent
    if begun.HasField("newMinuteEvent"):
        return begun.newMinuteEvent.blockHeight * 10 + begun.newMinuteEvent.newMinute - 1
    return begun.newBlockEvent.newBlockHeight * 10 if begun.HasField("newBlockEvent") else None


def emissions(capture: Capture) -> Iterator[tuple[float, FactomEvent]]:
    """Yield when each recorded event was emitted, and the event."""
    minute_seconds = meta_of(capture)["settings"]["blktime"] / 10
    events = [event_of(payload) for payload in capture.payloads()]
    logs = [log_of(capture, part) for part in range(len(receivers(capture)))]
    now, last_minute, minute_at = 0.0, 0, 0.0
    for number, line in enumerate(capture.events()):
        event = events[number]
        log = logs[int(line["conn"][4])]
        arrived = next(r["t"] for r in reversed(log) if r.get("off", FOR_EVER) <= line["off"])
        behind = log is not logs[0] and arrived - log[0]["t"] < 0.5
        minute = minute_of(event)
        if not behind:
            at = arrived
        elif minute is not None:
            at = minute_at + (minute - last_minute) * minute_seconds
        elif event.HasField("directoryBlockCommit"):
            # A block comes just before the next one begins (feed.md, section 4).
            begun = next(m for e in events[number:] if (m := minute_of(e)) is not None)
            at = minute_at + (begun - last_minute) * minute_seconds - 0.01
        else:
            at = now + 0.001
        if minute is not None:
            last_minute, minute_at = minute, at
        now = max(now, at)
        yield now, event


async def emit(
    schedule: list[tuple[float, FactomEvent]], weather: Weather, config: LiveFeedConfig
) -> Sender:
    sender = Sender(config, clock=weather.clock, sleep=weather.sleep, dial=weather.dial)
    weather.now = schedule[0][0] - 0.05
    async with running(sender):
        for at, event in schedule:
            await weather.pass_to(at)
            sender.offer(event)
            await settled()
        await weather.pass_to(weather.now + 30)
        await settled()
    return sender


@pytest.mark.parametrize("name", ["gap-short", "head-gap-long-persistent"])
async def test_a_short_absence_or_a_persistent_sender_loses_nothing(name: str) -> None:
    capture = recorded(name)
    weather = Weather(*receivers(capture))
    config = LiveFeedConfig(persistent_reconnect="persistent" in name)
    sender = await emit(list(emissions(capture)), weather, config)
    assert [connection.stream for connection in weather.connections] == capture.streams()
    assert (sender.counters.not_sent, sender.counters.dropped) == (0, 0)
    for part, connection in enumerate(weather.connections[1:], 1):
        # Every ten seconds from the first event that found nobody.
        assert connection.opened == pytest.approx(log_of(capture, part)[0]["t"], abs=0.25)


@pytest.mark.parametrize("name", ["gap-long", "gap-api"])
async def test_a_long_absence_darkens_the_feed_and_loses_the_recorded_heights(name: str) -> None:
    capture = recorded(name)
    block_seconds = meta_of(capture)["settings"]["blktime"]
    spans = receivers(capture)
    told = list(emissions(capture))
    # What was lost nobody recorded: put the blocks and minutes back that must have been there.
    gap = next(n for n, line in enumerate(capture.events()) if line["conn"].startswith("part1"))
    before, after = told[:gap], told[gap:]
    at, event = next((at, e) for at, e in reversed(before) if minute_of(e) is not None)
    minute = minute_of(event)
    assert minute is not None
    lost: list[tuple[float, FactomEvent]] = []
    opened = log_of(capture, 1)[0]["t"]
    # Recorded minutes come up to 20 ms late: with them darkness would end after its first event.
    at -= 0.02
    while (at := at + block_seconds / 10) < opened - 0.5:
        minute += 1
        height = minute // 10
        if minute % 10 == 0:
            block = {"directoryBlock": {"header": {"blockHeight": height - 1}}}
            lost.append((at, FactomEvent(directoryBlockCommit=block)))
            lost.append((at, FactomEvent(processListEvent={"newBlockEvent": {}})))
        else:
            lost.append((at, FactomEvent(processListEvent={"newMinuteEvent": {}})))

    weather = Weather(*spans)
    sender = await emit([*before, *lost, *after], weather, LiveFeedConfig())

    first, second = weather.connections
    assert [first.stream, second.stream] == capture.streams()
    assert second.opened == pytest.approx(opened, abs=0.25)
    # 3 x 10 s and 5 minutes, and up to a minute of the chain at either end.
    assert 0 <= second.opened - spans[0][1] - 330 < 2 * block_seconds / 10
    assert spans[1][0] - spans[0][1] == pytest.approx(50, abs=1)
    assert sender.counters.not_sent == len(lost)
    gone = [e.directoryBlockCommit.directoryBlock.header.blockHeight for _, e in lost]
    heights = [height for height in gone if height]
    arrived = [line["height"] for line in capture.events() if "height" in line]
    assert heights == list(range(4, min(h for h in arrived if h > 4)))
    assert sender.counters.dropped == 0


async def test_a_receiver_that_stalls_overflows_the_queue_and_a_stop_loses_it() -> None:
    """As in shutdown-with-queue: 80 replays of 141 blocks, a receiver that reads 300 kB of them."""
    capture = recorded("shutdown-with-queue")
    events = [event_of(payload) for payload in capture.payloads()]
    blocks = [event for event in events if event.HasField("directoryBlockCommit")]
    asked = [*events[:3], *(blocks[:141] * 80)]
    weather = Weather((0, FOR_EVER))
    sender = Sender(LiveFeedConfig(), clock=weather.clock, sleep=weather.sleep, dial=weather.dial)
    async with running(sender):
        weather.stall_after(300_000)
        for event in asked:
            sender.offer(event)
            if sender.waiting > 50 and len(weather.connections[0].stream) < 300_000:
                await settled()
        taken = len(asked) - sender.counters.dropped - sender.waiting
        assert sender.waiting == 5_000
    stream = weather.connections[0].stream
    whole = frames([event.SerializeToString() for event in asked[:taken]])
    # The beginning of what was emitted, its last event cut short, the queue gone without a count.
    assert len(stream) < len(whole)
    assert whole.startswith(stream)
    assert sender.counters.dropped == len(asked) - taken - 5_000 > 0
    assert sender.counters.not_sent == 0
    # So does the recording end: whole frames, and one begun.
    recorded_stream = capture.streams()[0]
    whole = frames(capture.payloads())
    assert recorded_stream.startswith(whole)
    assert len(recorded_stream) > len(whole)
