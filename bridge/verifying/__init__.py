"""`factom-bridge verify`: reads back what was published, and proves that it is complete.

It knows of the brokers what any consumer does: names, headers, data, and claim checks.
"""

from bridge.verifying.show import verify_published

__all__ = ["verify_published"]
