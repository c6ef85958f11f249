"""A counted window that broke in the middle: what came behind the hole is no proof of what is in it."""

from __future__ import annotations

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from bridge.errors import SinkUnavailable
from bridge.model import Tail
from tests.brokers.nats import NatsBroker
from tests.contract.stand import NatsStand, rendered
from tests.support.consumers import nats_client
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers


async def _believed(_tail: Tail) -> bool:
    return True


async def test_a_hole_in_a_window_is_not_skipped(nats_server: NatsBroker) -> None:
    stand, maker = NatsStand(nats_server, atomic=False), Maker(11)
    sizes = [1_000] * 7 + [80_000] + [1_000] * 12
    messages = rendered([maker.reveal(size) for size in sizes])
    async with nats_client(nats_server.url) as client:
        jetstream = client.jetstream()
        config = StreamConfig(
            name=stand.prefix,
            subjects=[f"{stand.prefix}.>"],
            discard=DiscardPolicy.NEW,
            duplicate_window=7200,
            max_bytes=120_000,
        )
        await jetstream.add_stream(config)
        sink = stand.sink()
        await sink.open()
        with pytest.raises(SinkUnavailable, match="full"):
            await sink.publish(messages)
        await sink.close()

        stored = [read.seq for read in await stand.read()]
        assert 8 not in stored
        assert max(stored) > 8
        await sink.open()
        assert (await sink.standing(sink.mark, _believed)).tail is None
        await jetstream.update_stream(config.evolve(max_bytes=1_000_000))
        await sink.publish(messages)
        await sink.close()

    assert sorted(read.seq for read in await stand.read()) == list(range(1, 21))
