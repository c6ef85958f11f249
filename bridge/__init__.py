"""factom-bridge: a Factom node's Live Feed onto Kafka topics or NATS JetStream subjects.

Start reading at `bridge.app`, which builds every part once, and `bridge.stages`, whose three
stages share one shape: read past a checkpoint, pure function, effect, move the checkpoint.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("factom-bridge")
