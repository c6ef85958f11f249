"""The two private methods of nats-py that the sink calls: what it relies on, and nothing more.

When this fails after an update of nats-py, `bridge/sinks/nats.py` must follow.
"""

from __future__ import annotations

import inspect

import pytest
from nats.aio.client import Client

from tests.brokers.nats import NatsBroker
from tests.support.consumers import nats_client

pytestmark = pytest.mark.brokers


def test_they_take_what_the_sink_gives_them() -> None:
    assert inspect.iscoroutinefunction(Client._send_command)
    assert list(inspect.signature(Client._send_command).parameters)[:2] == ["self", "cmd"]
    assert inspect.iscoroutinefunction(Client._flush_pending)
    required = [
        parameter
        for parameter in inspect.signature(Client._flush_pending).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    assert [parameter.name for parameter in required] == ["self"]


async def test_bytes_given_to_them_reach_the_server_as_they_are(nats_server: NatsBroker) -> None:
    async with nats_client(nats_server.url) as client:
        subscription = await client.subscribe("raw")
        head = "NATS/1.0\r\nname: value\r\n\r\n"
        command = f"HPUB raw {len(head)} {len(head) + 4}\r\n{head}body\r\n".encode()
        await client._send_command(command * 2)
        await client._flush_pending()

        for _ in range(2):
            message = await subscription.next_msg(timeout=5)
            assert (message.data, message.headers) == (b"body", {"name": "value"})
