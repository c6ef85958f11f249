"""What the client libraries offer and do not keep is not used at all (docs/decisions, delivery.md)."""

import ast
from pathlib import Path

import pytest

BRIDGE = Path(__file__).resolve().parents[2] / "bridge"
TRAPS = {
    "transactional_id": "aiokafka: a transaction commits though a send in it failed",
    "begin_transaction": "aiokafka: a transaction commits though a send in it failed",
    "send_and_wait": "aiokafka: a future for each record, and none of them bounded",
    "flush": "aiokafka: waits for ever when the broker is away; of NATS it is a PING",
    "publish_async": "nats-py: its futures never resolve after a disconnect",
    "drain": "nats-py: raises while it reconnects, and acknowledgements are the only truth",
}
# In the sinks: a stream's `drain` elsewhere is asyncio's.
MODULES = sorted((BRIDGE / "sinks").glob("*.py"))
ALLOWED = {("nats_exchange.py", "flush")}
"""As a PING, with a time limit: does a server that acknowledges nothing answer at all?"""


def used(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names | {
        node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) if node.arg
    }


@pytest.mark.parametrize("name", TRAPS)
def test_no_sink_relies_on_what_a_client_library_does_not_keep(name: str) -> None:
    found = {path.name for path in MODULES if name in used(path)}
    assert {(file, name) for file in found} <= ALLOWED, TRAPS[name]


def test_the_clients_are_told_not_to_come_back_by_themselves() -> None:
    assert "allow_reconnect" in used(BRIDGE / "sinks" / "nats_connection.py")
