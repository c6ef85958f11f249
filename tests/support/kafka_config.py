"""A topic's configuration, changed while others use the topic."""

from __future__ import annotations

import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

__all__ = ["set_config"]

_SECONDS = 20
_LOOK_SECONDS = 0.1
_SETTLING_SECONDS = 0.5
"""The broker tells of a change a moment before its logs follow it."""


async def set_config(bootstrap: str, topic: str, name: str, value: str) -> None:
    """Set `name` of `topic`, and return when it is in force: the answer alone does not say so."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        changed = ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})
        await admin.alter_configs([changed])
        async with asyncio.timeout(_SECONDS):
            while True:
                (told,) = await admin.describe_configs([resource])
                entries = {entry[0]: entry[1] for entry in told.resources[0][4]}
                if entries.get(name) == value:
                    break
                await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await admin.close()
    await asyncio.sleep(_SETTLING_SECONDS)
