"""`factom-bridge demo`: a recorded feed through a real bridge, shown in the terminal.

Nothing here is pretended: the recording of a real node (one that went dark for five minutes, so
heights 4 to 25 are missing) is sent over TCP into a running bridge, whose embedded NATS server is
read back by a plain consumer. It succeeds only if every message arrived.
"""

from bridge.demo.show import show

__all__ = ["show"]
