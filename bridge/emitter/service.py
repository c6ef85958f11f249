"""The event service of a node: told what happened, it sends what a node would send, or nothing.

Operations, and what stops an event on its way, are the node's (factomd, `events/eventEmitter.go`).
Nothing here blocks or fails for want of a receiver: what the sender's queue cannot take is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.inputs import AnchorInfo, DirectoryBlockState, Entity
from bridge.emitter.mapping import Mapper
from bridge.emitter.sender import Sender
from bridge.emitter.sprintf import sprintf
from bridge.pb.eventmessages import factomEvents_pb2 as pb

__all__ = ["EventSender", "EventService", "NodeState"]

_NO_STATE = cast("pb.EventSource", -1)


@dataclass(slots=True)
class NodeState:
    """What the service must know of its node; the node keeps it true."""

    identity_chain_id: bytes
    run_leader: bool = False
    """Whether the node leads, or follows in step: until then its events are replayed ones."""
    stopping: bool = False
    """Once true, nothing is sent any more."""


class EventSender(Protocol):
    """Where events go."""

    @property
    def config(self) -> LiveFeedConfig:
        """The settings that decide which events there are."""

    def offer(self, event: pb.FactomEvent, /) -> bool:
        """Take `event`, or drop it and say so with False; never wait."""


class EventService:
    """Emits events; until it is configured, and where the feed is off, it emits none.

    Once it is configured, any thread may emit, if its sender's `offer` may be called so: that of
    `Sender` may. Events of one thread keep their order.
    """

    def __init__(self, *, timestamp_quirk: bool = True) -> None:
        self._quirk = timestamp_quirk
        self._state: NodeState | None = None
        self._sender: EventSender | None = None
        self._mapper: Mapper

    def config_service(
        self, state: NodeState | None, config: LiveFeedConfig, **options: Any
    ) -> Sender | None:
        """Configure from settings, and return the sender made, whose `run` must be running.

        `options` are those of `Sender`. None: the settings have the feed switched off.
        """
        self._state, self._sender = state, None
        if not config.enabled:
            return None
        sender = Sender(config, **options)
        self.config_sender(state, sender)
        return sender

    def config_sender(self, state: NodeState | None, sender: EventSender) -> None:
        """Configure with a given sender, whose settings count. Without state, the source is -1."""
        config = sender.config
        self._state, self._sender = state, sender
        self._mapper = Mapper(
            config.broadcast_content,
            send_state_change=config.send_state_change,
            timestamp_quirk=self._quirk,
        )

    def emit_registration_event(self, entity: Entity) -> None:
        """A commit or reveal came in."""
        if self._is_open():
            self._send(self._mapper.registration(entity), self._source())

    def emit_state_change_event(self, entity: Entity, state: pb.EntityState) -> None:
        """A commit or reveal was accepted or rejected."""
        if self._is_open():
            self._send(self._mapper.state_change(entity, state), self._source())

    def emit_directory_block_commit_event(self, block: DirectoryBlockState) -> None:
        """A block was saved."""
        if self._is_open():
            self._send(self._mapper.live_block(block), self._source())

    def emit_directory_block_anchor_event(self, info: AnchorInfo) -> None:
        """A block's anchor record changed."""
        if self._is_open():
            self._send(self._mapper.anchor(info), self._source())

    def emit_replay_directory_block_commit(self, block: DirectoryBlockState) -> None:
        """A block is sent again because someone asked for it."""
        if self._is_open():
            self._send(self._mapper.replayed_block(block), pb.EventSource.REPLAY_BOOT)

    def emit_process_list_event_new_block(self, height: int) -> None:
        """The first minute of block `height` began."""
        if self._is_open(always=True):
            begun = pb.ProcessListEvent(newBlockEvent=pb.NewBlockEvent(newBlockHeight=height))
            self._send(pb.FactomEvent(processListEvent=begun), self._source())

    def emit_process_list_event_new_minute(self, minute: int, height: int) -> None:
        """A minute of block `height` began, 2 to 10."""
        if self._is_open(always=True):
            event = pb.NewMinuteEvent(newMinute=minute, blockHeight=height)
            begun = pb.ProcessListEvent(newMinuteEvent=event)
            self._send(pb.FactomEvent(processListEvent=begun), self._source())

    def emit_node_info_message(
        self, code: pb.NodeMessageCode, message: str, *values: object
    ) -> None:
        """The node has news of itself; `values` go into `message` as by Go's `Sprintf`.

        Without values `message` is the text. (A node garbles a percent sign in it.)
        """
        self._node_message(code, pb.Level.INFO, message, values)

    def emit_node_error_message(
        self, code: pb.NodeMessageCode, message: str, *values: object
    ) -> None:
        """The node has failed; `message` and `values` as above.

        A value that `message` has no place for is told after it, as nodes tell what broke them.
        """
        self._node_message(code, pb.Level.ERROR, message, values)

    def _node_message(
        self, code: pb.NodeMessageCode, level: pb.Level, message: str, values: tuple[object, ...]
    ) -> None:
        if self._is_open(always=True):
            text = sprintf(message, *values) if values else message
            # A name of a file may hold what is no UTF-8, and protobuf takes no such text.
            text = text.encode(errors="replace").decode()
            told = pb.NodeMessage(messageCode=code, level=level, messageText=text)
            # Live whatever the node does: it speaks of now.
            self._send(pb.FactomEvent(nodeMessage=told), pb.EventSource.LIVE)

    def _is_open(self, *, always: bool = False) -> bool:
        """Whether events leave now; `always`: those that do not wait for the node to lead."""
        sender, state = self._sender, self._state
        if sender is None:
            return False
        if state is None:
            return True
        if state.stopping:
            return False
        return always or state.run_leader or sender.config.replay_during_startup

    def _source(self) -> pb.EventSource:
        if self._state is None:
            return _NO_STATE
        return pb.EventSource.LIVE if self._state.run_leader else pb.EventSource.REPLAY_BOOT

    def _send(self, event: pb.FactomEvent | None, source: pb.EventSource) -> None:
        if event is None or self._sender is None:
            return
        event.eventSource = source
        if self._state is not None:
            event.identityChainID = self._state.identity_chain_id
        self._sender.offer(event)
